"""Fetching a file over HTTP, for ADD and for remote contexts."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from posixpath import basename
from typing import IO, Any, Protocol
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from longshore.build.urls import authorization, redacted
from longshore.errors import InvalidParameter, System

_CHUNK = 1 << 18
_CONNECT, _READ = 30.0, 120.0
"""Seconds to connect, and to wait for more."""
_MOST_REDIRECTS = 10


@dataclass(frozen=True)
class Downloaded:
    """What was fetched. `name` is "" if neither the URL nor the server tell one, `modified` 0 likewise."""

    name: str
    content_type: str
    modified: float
    """Seconds since the epoch."""


class Cancellation(Protocol):
    """How blocking work is ended from another thread."""

    def check(self) -> None:
        """Raises once the work was ended."""

    def calls(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Within the block, ending the work calls back."""


def download(
    url: str,
    file: IO[bytes],
    progress: Callable[[int, int], None],
    cancellation: Cancellation,
    checksum: str = "",
) -> Downloaded:
    """Fetch `url` into `file`, and nothing else: no name is made or changed. Blocks.

    `progress` gets the number of further bytes, and of all that are expected, 0 if nobody knows. Raises
    System, InvalidParameter for a checksum that is not the file's, what `cancellation` raises, and urllib3's
    HTTPError.
    """
    import urllib3

    expected = _checksum(checksum) if checksum else None
    timeout = urllib3.Timeout(connect=_CONNECT, read=_READ)
    # Another host, to which the server may send us, does not get them.
    headers = authorization(url)
    retries = urllib3.Retry(connect=0, read=0, other=0, redirect=_MOST_REDIRECTS)
    with ExitStack() as held:
        pool = held.enter_context(_pool(url, cancellation, held))
        try:
            answer = pool.request(
                "GET", url, preload_content=False, timeout=timeout, retries=retries, headers=headers
            )
            with answer:
                if answer.status >= 400:
                    told = f"{answer.status} {answer.reason or ''}".strip()
                    raise System(f"failed to GET {redacted(url)} with status {told}")
                digest = _save(answer, file, progress, cancellation)
                received = answer.headers
        except urllib3.exceptions.MaxRetryError as exc:
            # There was one attempt: tell what it failed with.
            reason = exc.reason or exc
            raise reason from reason.__cause__
    if expected is not None and digest != expected:
        raise InvalidParameter(f"digest mismatch sha256:{digest}: sha256:{expected}")
    return Downloaded(
        _name(url, received.get("Content-Disposition", "")),
        received.get("Content-Type", "").partition(";")[0].strip().lower(),
        _time(received.get("Last-Modified", "")),
    )


def _pool(url: str, cancellation: Cancellation, held: ExitStack) -> Any:
    """Whose connections are broken by the cancellation, whatever they wait for; until `held` is closed."""
    import urllib3
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    def break_with_cancellation(connection: HTTPConnection) -> None:
        if (sock := connection.sock) is not None:
            # Not TLS's own shutdown, which would change the object under the thread that reads from it.
            held.enter_context(cancellation.calls(lambda: socket.socket.shutdown(sock, socket.SHUT_RDWR)))

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            break_with_cancellation(self)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            break_with_cancellation(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    pool: urllib3.PoolManager
    if proxy and not proxy_bypass(parts.netloc):
        pool = urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}")
    else:
        pool = urllib3.PoolManager()
    pool.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return pool


def _save(
    answer: Any, file: IO[bytes], progress: Callable[[int, int], None], cancellation: Cancellation
) -> str:
    digest = hashlib.sha256()
    length = answer.headers.get("Content-Length", "")
    expected = int(length) if re.fullmatch(r"\d{1,18}", length) else 0
    for chunk in answer.stream(_CHUNK, decode_content=False):
        cancellation.check()
        file.write(chunk)
        digest.update(chunk)
        progress(len(chunk), expected)
    return digest.hexdigest()


def _checksum(text: str) -> str:
    algorithm, _, digest = text.partition(":")
    if algorithm != "sha256":
        raise InvalidParameter(f"unsupported checksum algorithm: {text}")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InvalidParameter(
            "invalid checksum digest length" if len(digest) != 64 else "invalid checksum digest format"
        )
    return digest


def _name(url: str, disposition: str) -> str:
    """The file's name as the URL has it, or else the server; never one that leads elsewhere."""
    path = unquote(urlsplit(url).path)
    name = "" if path.endswith("/") else basename(path)
    if not name and disposition:
        header = Message()
        header["Content-Disposition"] = disposition
        name = basename(header.get_filename() or "")
    return "" if name in (".", "..") or "\0" in name else name


def _time(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp() if text else 0.0
    except (ValueError, OverflowError):
        return 0.0
