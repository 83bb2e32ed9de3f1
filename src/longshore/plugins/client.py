"""Calling a plug-in: JSON in, JSON out, over HTTP on a socket or, with TLS, over the network."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec

from longshore.errors import System

CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"

_PATIENCE = 15.0
"""Seconds that a plug-in has to come up, should it be started together with the daemon."""
_TIMEOUT = 120.0
_LONGEST_ANSWER = 16 << 20


class PluginFailure(System):
    """The plug-in cannot be reached, or says that it failed."""


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
        self._lock = threading.Lock()

    def implements(self, kind: str, patience: float = _PATIENCE) -> bool:
        """Whether it is a plug-in of this kind, e.g. VolumeDriver: it is asked once."""
        with self._lock:
            if self._implements is None:
                answer = self.call("Plugin.Activate", patience=patience)
                kinds = answer.get("Implements")
                self._implements = frozenset(map(str, kinds if isinstance(kinds, list) else []))
            return kind in self._implements

    def call(
        self, method: str, arguments: object = None, *, timeout: float = _TIMEOUT, patience: float = _PATIENCE
    ) -> dict[str, Any]:
        """What it answers to `VolumeDriver.Create` and the like; it is tried again until it listens."""
        body = b"" if arguments is None else msgspec.json.encode(arguments)
        deadline, delay = time.monotonic() + patience, 0.1
        while True:
            try:
                return self._once(method, body, timeout)
            except (ConnectionRefusedError, FileNotFoundError) as exc:
                if time.monotonic() + delay > deadline:
                    raise PluginFailure(f'Post "{self._url(method)}": {exc.strerror or exc}') from exc
                time.sleep(delay)
                delay *= 2
            except (OSError, http.client.HTTPException) as exc:
                raise PluginFailure(f'Post "{self._url(method)}": {exc}') from exc

    def _once(self, method: str, body: bytes, timeout: float) -> dict[str, Any]:
        connection = self._connection(timeout)
        try:
            connection.request(
                "POST", f"/{method}", body, {"Accept": CONTENT_TYPE, "Content-Type": CONTENT_TYPE}
            )
            answer = connection.getresponse()
            content = answer.read(_LONGEST_ANSWER)
        finally:
            connection.close()
        try:
            decoded = msgspec.json.decode(content or b"{}", type=dict[str, Any])
        except msgspec.MsgspecError:
            decoded = {}
            if answer.status == 200:
                raise PluginFailure(f"{method}: the plug-in's answer is no JSON object") from None
        problem = decoded.get("Err")
        if answer.status != 200:
            text = problem or content[:1024].decode(errors="replace").strip() or answer.reason
            raise PluginFailure(f"{method}: {text}")
        if problem:
            raise PluginFailure(str(problem))
        return decoded

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.address)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path, timeout)
        if not parts.netloc:
            raise PluginFailure(f"plugin {self.name}: invalid address {self.address!r}")
        if parts.scheme == "https" or self._tls is not None:
            return http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=self._tls_context())
        return http.client.HTTPConnection(parts.netloc, timeout=timeout)

    def _tls_context(self) -> ssl.SSLContext:
        tls = self._tls or TlsSettings()
        context = ssl.create_default_context(cafile=tls.CAFile or None)
        if tls.InsecureSkipVerify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if tls.CertFile:
            context.load_cert_chain(tls.CertFile, tls.KeyFile or None)
        return context

    def _url(self, method: str) -> str:
        parts = urlsplit(self.address)
        host = parts.path.replace("/", "%2F") if parts.scheme == "unix" else parts.netloc
        return f"http://{host}/{method}"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("plugin", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
