"""HTTP to one registry: TLS as configured for its host, proxies, redirects, and failures in Go's words."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies_environment

from longshore import __version__
from longshore.errors import InvalidParameter
from longshore.images.registry.endpoints import Endpoint, RegistrySettings
from longshore.images.registry.failures import Cancelled, Refused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3 import BaseHTTPResponse, PoolManager

    Body = bytes | IO[bytes] | Iterable[bytes] | None

CONNECT_TIMEOUT = 15.0
_MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_DRAINED = 64 << 10
UPLOAD_BLOCK = 1 << 16
"""Bytes that are sent at a time: each has as many seconds as connecting has."""


class Cancellation:
    """Ends blocking work in a thread from outside. Every method may be called in threads."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: set[Callable[[], None]] = set()

    def cancel(self) -> None:
        """Let the work fail with Cancelled, now if it waits for bytes."""
        with self._lock:
            self._event.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # It has just ended by itself.
                callback()

    def check(self) -> None:
        """Raises Cancelled after `cancel`."""
        if self._event.is_set():
            raise Cancelled

    def sleep(self, seconds: float) -> None:
        """Wait. Raises Cancelled."""
        if self._event.wait(seconds):
            raise Cancelled

    @contextmanager
    def calls(self, callback: Callable[[], None]) -> Iterator[None]:
        """Within the block, `cancel` calls back."""
        with self._lock:
            self._callbacks.add(callback)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._callbacks.discard(callback)


class Transport:
    """Connections to an endpoint, and to where it redirects. Blocking; use it in threads."""

    def __init__(self, endpoint: Endpoint, settings: RegistrySettings) -> None:
        """Raises InvalidParameter for certificates that are not usable."""
        self.endpoint = endpoint
        self._settings = settings
        self._tls = _tls_context(endpoint, settings)
        self._pools: dict[str, PoolManager] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close connections that are not in use."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body = None,
        *,
        read_timeout: float | None = None,
    ) -> BaseHTTPResponse:
        """One request, redirects of GET and HEAD followed; the answer's body is unread.

        Authorization stays with the host it was meant for. Raises Unreachable, Refused.
        """
        sent = {"User-Agent": f"longshore/{__version__}", **headers}
        first = url
        for _ in range(_MOST_REDIRECTS):
            with named_failure(method, first):
                answer = self._request(method, url, sent, body, read_timeout or self._settings.read_timeout)
            location = answer.headers.get("Location")
            if method not in ("GET", "HEAD") or answer.status not in _REDIRECTS or not location:
                return answer
            drain(answer)
            before, url = url, urljoin(url, location)
            if urlsplit(url).scheme not in ("http", "https"):
                raise Refused(f'{_verb(method)} "{first}": unsupported protocol scheme in a redirect')
            if not same_host(before, url):
                sent.pop("Authorization", None)
        raise Refused(f'{_verb(method)} "{first}": stopped after {_MOST_REDIRECTS} redirects')

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: Body, read_timeout: float
    ) -> BaseHTTPResponse:
        from urllib3 import Timeout

        if isinstance(body, bytes) and len(body) > UPLOAD_BLOCK:
            headers = {**headers, "Content-Length": str(len(body))}
            body = io.BytesIO(body)
        return self._pool(url).request(
            method,
            url,
            headers=headers,
            body=body,
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
            timeout=Timeout(connect=CONNECT_TIMEOUT, read=read_timeout),
        )

    def _pool(self, url: str) -> PoolManager:
        from urllib3 import PoolManager, ProxyManager, disable_warnings
        from urllib3.exceptions import InsecureRequestWarning

        disable_warnings(InsecureRequestWarning)  # The user said so, or it is this machine itself.
        target = urlsplit(url)
        proxy = _proxy(target.scheme, target.netloc, self._settings.proxies)
        with self._lock:
            pool = self._pools.get(proxy)
            if pool is None:
                # Token servers and stores that the registry names are trusted as it is, as by dockerd: often
                # they are the same machine on another port, with a certificate of the same authority.
                if proxy:
                    pool = ProxyManager(
                        proxy,
                        proxy_headers=_proxy_authorization(proxy),
                        ssl_context=self._tls,
                        maxsize=8,
                        blocksize=UPLOAD_BLOCK,
                    )
                else:
                    pool = PoolManager(ssl_context=self._tls, maxsize=8, blocksize=UPLOAD_BLOCK)
                self._pools[proxy] = pool
            return pool


def read_whole(answer: BaseHTTPResponse, most: int) -> bytes:
    """All of an answer, of at most so many bytes. Raises Refused, or urllib3's errors if it breaks off."""
    content = bytearray()
    while chunk := answer.read(most + 1 - len(content)):
        content += chunk
        if len(content) > most:
            raise Refused(f"the registry's answer is longer than {most} bytes")
    return bytes(content)


def drain(answer: BaseHTTPResponse) -> None:
    """Be done with an answer that nobody reads: its connection is kept if little of it is left."""
    left = _MOST_DRAINED
    with contextlib.suppress(Unreachable), named_failure("GET", ""):
        while left > 0 and (chunk := answer.read(left)):
            left -= len(chunk)
    answer.close()


def same_host(one: str, other: str) -> bool:
    """Whether both URLs are of one scheme, host and port: what may see the same credentials."""
    first, second = urlsplit(one), urlsplit(other)
    return (first.scheme, first.netloc) == (second.scheme, second.netloc)


@contextmanager
def named_failure(method: str, url: str) -> Iterator[None]:
    """Turn failures of the connection into Unreachable, as Go's net/http words them."""
    from urllib3.exceptions import HTTPError

    try:
        yield
    except HTTPError as exc:
        raise Unreachable(f'{_verb(method)} "{url}": {_reason(exc, url)}') from exc
    except (OSError, ValueError) as exc:  # ValueError: reads of a file closed by a cancellation
        raise Unreachable(f'{_verb(method)} "{url}": {exc}') from exc


def _reason(error: Exception, url: str) -> str:
    from urllib3 import exceptions

    if isinstance(error, exceptions.ProxyError):
        return f"proxyconnect tcp: {error.original_error}"
    if isinstance(error, exceptions.NameResolutionError):
        return f"dial tcp: lookup {urlsplit(url).hostname}: no such host"
    if isinstance(error, exceptions.NewConnectionError):
        cause = error.__cause__ or error.__context__
        said = (
            os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else str(cause)
        ).lower()
        return f"dial tcp {_dialled(url)}: connect: {said}"
    if isinstance(error, exceptions.ConnectTimeoutError):
        return f"dial tcp {_dialled(url)}: i/o timeout"
    if isinstance(error, exceptions.ReadTimeoutError):
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    if isinstance(error, exceptions.SSLError):
        return _tls_reason(str(error))
    if isinstance(error, exceptions.ProtocolError):  # IncompleteRead is one, and wrapped in one
        cause = error.args[-1] if error.args else error
        if isinstance(cause, exceptions.IncompleteRead) or isinstance(error, exceptions.IncompleteRead):
            return "unexpected EOF"
        if isinstance(cause, ConnectionResetError) and cause.errno:
            return "connection reset by peer"
        if isinstance(cause, BrokenPipeError):
            return "write: broken pipe"
        return "EOF" if isinstance(cause, ConnectionError) else str(cause)
    return str(error)


def _tls_reason(said: str) -> str:
    if "WRONG_VERSION_NUMBER" in said or "record layer failure" in said.lower() or "HTTP_REQUEST" in said:
        return "http: server gave HTTP response to HTTPS client"
    if "Hostname mismatch" in said or "IP address mismatch" in said:
        return "tls: failed to verify certificate: x509: certificate is not valid for this name"
    if "certificate has expired" in said:
        return "tls: failed to verify certificate: x509: certificate has expired or is not yet valid"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    return f"tls: {said}"


def _dialled(url: str) -> str:
    target = urlsplit(url)
    host, port = target.hostname or "", target.port or (443 if target.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return f"{host}:{port}"
    address = str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _verb(method: str) -> str:
    return method.capitalize()


def _proxy(scheme: str, netloc: str, configured: Mapping[str, str]) -> str:
    """The proxy's URL, "" for none. As in Go, the machine itself is never reached by proxy."""
    host = urlsplit(f"//{netloc}").hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return ""
    found = getproxies_environment()
    for name in ("http", "https", "no"):
        if value := configured.get(f"{name}-proxy"):
            found[name] = value
    proxy = found.get(scheme, "")
    if not proxy or any(_is_exempt(host, netloc, each.strip()) for each in found.get("no", "").split(",")):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxy_authorization(proxy: str) -> dict[str, str]:
    from urllib3 import make_headers

    user = urlsplit(proxy)
    if user.username is None:
        return {}
    return dict(make_headers(proxy_basic_auth=f"{unquote(user.username)}:{unquote(user.password or '')}"))


def _is_exempt(host: str, netloc: str, pattern: str) -> bool:
    """One word of no-proxy: a domain and what is below it, a network, an address, or `*`."""
    if pattern in ("*", host, netloc):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(pattern, strict=False)
    return bool(pattern) and host.endswith("." + pattern.lstrip("*").lstrip("."))


def _tls_context(endpoint: Endpoint, settings: RegistrySettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not endpoint.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    directory = settings.certificates / endpoint.host
    try:
        files = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return context
    names = {file.name for file in files}
    try:
        for file in files:
            if file.suffix == ".crt":
                context.load_verify_locations(file)
            elif file.suffix == ".cert":
                if file.with_suffix(".key").name not in names:
                    raise InvalidParameter(
                        f"missing key {file.with_suffix('.key').name} for client certificate {file.name}. "
                        "CA certificates must use the extension .crt"
                    )
                context.load_cert_chain(file, file.with_suffix(".key"))
            elif file.suffix == ".key" and file.with_suffix(".cert").name not in names:
                raise InvalidParameter(
                    f"missing client certificate {file.with_suffix('.cert').name} for key {file.name}"
                )
    except OSError as exc:  # ssl.SSLError is one
        raise InvalidParameter(f"{directory}: {exc.strerror or exc}") from None
    return context
