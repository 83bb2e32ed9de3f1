"""Calling a plug-in: JSON in, JSON out, over HTTP on a socket or, with TLS, over the network."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from longshore.errors import System

CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"

_PATIENCE = 15.0
"""Seconds that a plug-in has to come up, should it be started together with the daemon."""
_TIMEOUT = 120.0
_LONGEST_ANSWER = 16 << 20


class PluginFailure(System):
    """The plug-in cannot be reached, or says that it failed."""


class PluginUnreachable(PluginFailure):
    """It does not answer, or not in time: what it would have said is not known."""


class MethodMissing(PluginFailure):
    """The plug-in has no such method (it answers 404)."""


class TlsSettings(msgspec.Struct):
    """`TLSConfig` of a specification."""

    InsecureSkipVerify: bool = False
    CAFile: str = ""
    CertFile: str = ""
    KeyFile: str = ""


class Plugin:
    """One plug-in. Methods may be called by several threads, and raise PluginFailure."""

    def __init__(self, name: str, address: str, tls: TlsSettings | None = None) -> None:
        """`address` is `unix:///path`, `tcp://host:port`, `http://host:port` or `https://host:port`."""
        self.name = name
        self.address = address
        self._tls = tls
        self._implements: frozenset[str] | None = None

    def implements(self, kind: str, patience: float = _PATIENCE, timeout: float = _TIMEOUT) -> bool:
        """Whether it is a plug-in of this kind, e.g. VolumeDriver: it is asked until it has answered."""
        # No lock: whoever has little time must not wait for the answer to one who has much.
        if (known := self._implements) is None:
            answer = self.call("Plugin.Activate", patience=patience, timeout=timeout)
            kinds = answer.get("Implements")
            known = self._implements = frozenset(map(str, kinds if isinstance(kinds, list) else []))
        return kind in known

    def call(
        self,
        method: str,
        arguments: object = None,
        *,
        timeout: float = _TIMEOUT,
        patience: float = _PATIENCE,
        complaint: str = "Err",
        prefix: str = "",
    ) -> dict[str, Any]:
        """What it answers to `VolumeDriver.Create` and the like; it is tried again until it listens.

        What a field `complaint` of its answer says is raised, with the `prefix` before it.
        """
        body = b"" if arguments is None else msgspec.json.encode(arguments)
        deadline, delay = time.monotonic() + patience, 0.1
        while True:
            try:
                answer = self._once(method, body, timeout)
                if problem := answer.get(complaint):
                    raise PluginFailure(f"{prefix}{problem}")
                return answer
            except (ConnectionRefusedError, FileNotFoundError) as exc:
                if time.monotonic() + delay > deadline:
                    raise PluginUnreachable(f'Post "{self._url(method)}": {exc.strerror or exc}') from exc
                time.sleep(delay)
                delay *= 2
            except (OSError, http.client.HTTPException) as exc:
                raise PluginUnreachable(f'Post "{self._url(method)}": {exc}') from exc

    def _once(self, method: str, body: bytes, timeout: float) -> dict[str, Any]:
        connection = self._connection(timeout)
        try:
            with _ended_after(timeout, connection):
                connection.request(
                    "POST", f"/{method}", body, {"Accept": CONTENT_TYPE, "Content-Type": CONTENT_TYPE}
                )
                answer = connection.getresponse()
                content = answer.read(_LONGEST_ANSWER + 1)
        finally:
            connection.close()
        if len(content) > _LONGEST_ANSWER:
            raise PluginFailure(f"{method}: the plug-in's answer is longer than {_LONGEST_ANSWER} bytes")
        try:
            decoded = msgspec.json.decode(content or b"{}", type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            decoded = {}
            if answer.status == 200:
                raise PluginFailure(f"{method}: the plug-in's answer is no JSON object") from None
        if answer.status != 200:
            text = decoded.get("Err") or content[:1024].decode(errors="replace").strip() or answer.reason
            raise (MethodMissing if answer.status == 404 else PluginFailure)(f"{method}: {text}")
        return decoded

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = self._parts()
        if parts.scheme == "unix":
            return _UnixConnection(parts.path, timeout)
        if parts.scheme == "https" or self._tls is not None:
            return http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=self._tls_context())
        return http.client.HTTPConnection(parts.netloc, timeout=timeout)

    def _parts(self) -> SplitResult:
        with suppress(ValueError):
            parts = urlsplit(self.address)
            if parts.scheme == "unix" or (parts.hostname and parts.port != 0):  # the port is read as a number
                return parts
        raise PluginFailure(f"plugin {self.name}: invalid address {self.address!r}")

    def _tls_context(self) -> ssl.SSLContext:
        tls = self._tls or TlsSettings()
        try:
            context = ssl.create_default_context(cafile=tls.CAFile or None)
            if tls.InsecureSkipVerify:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if tls.CertFile:
                context.load_cert_chain(tls.CertFile, tls.KeyFile or None)
        except OSError as exc:  # ssl.SSLError is one; it does not say which file.
            raise PluginFailure(f"plugin {self.name}: TLS configuration: {exc.strerror or exc}") from exc
        return context

    def _url(self, method: str) -> str:
        parts = urlsplit(self.address)
        host = parts.path.replace("/", "%2F") if parts.scheme == "unix" else parts.netloc
        return f"http://{host}/{method}"


@contextmanager
def _ended_after(seconds: float, connection: http.client.HTTPConnection) -> Iterator[None]:
    """A time-out for all of a call: that of a socket begins anew with every byte. Raises TimeoutError."""
    expired = threading.Event()

    def end() -> None:
        expired.set()
        with suppress(OSError):
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as exc:
        if expired.is_set():
            raise TimeoutError("timed out") from exc
        raise
    finally:
        timer.cancel()
    if expired.is_set():
        raise TimeoutError("timed out")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("plugin", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
