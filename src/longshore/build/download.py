"""Fetching a file over HTTP, for ADD and for remote contexts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from posixpath import basename
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from longshore.errors import Abandoned, InvalidParameter, System

_CHUNK = 1 << 18
_CONNECT, _READ = 30.0, 120.0
"""Seconds to connect, and to wait for more."""
_MOST_REDIRECTS = 10
_UNNAMED = "__unnamed__"


@dataclass(frozen=True)
class Downloaded:
    """A file in a directory of its own. `name` is "" if the server and the URL do not tell one."""

    path: Path
    name: str
    content_type: str


def download(
    url: str,
    directory: Path,
    progress: Callable[[int, int], None],
    is_cancelled: Callable[[], bool],
    checksum: str = "",
) -> Downloaded:
    """Fetch `url` into `directory`. Blocks.

    `progress` gets the number of further bytes, and of all that are expected, 0 if nobody knows. Raises
    System, InvalidParameter for a checksum that is not the file's, Abandoned once `is_cancelled`, and
    urllib3's HTTPError.
    """
    import urllib3

    expected = _checksum(checksum) if checksum else None
    timeout = urllib3.Timeout(connect=_CONNECT, read=_READ)
    retries = urllib3.Retry(connect=0, read=0, other=0, redirect=_MOST_REDIRECTS)
    with _pool(url) as pool:
        try:
            answer = pool.request("GET", url, preload_content=False, timeout=timeout, retries=retries)
            with answer:
                if answer.status >= 400:
                    raise System(
                        f"failed to GET {url} with status {answer.status} {answer.reason or ''}".strip()
                    )
                name = _name(url, answer.headers.get("Content-Disposition", ""))
                path = directory / (name or _UNNAMED)
                digest = _save(answer, path, progress, is_cancelled)
                modified, kind = (
                    answer.headers.get("Last-Modified", ""),
                    answer.headers.get("Content-Type", ""),
                )
        except urllib3.exceptions.MaxRetryError as exc:
            # There was one attempt: tell what it failed with.
            reason = exc.reason or exc
            raise reason from reason.__cause__
    if expected is not None and digest != expected:
        raise InvalidParameter(f"digest mismatch sha256:{digest}: sha256:{expected}")
    moment = _time(modified)
    os.utime(path, (moment, moment))
    return Downloaded(path, name, kind.partition(";")[0].strip().lower())


def _pool(url: str) -> Any:
    import urllib3

    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.netloc):
        return urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}")
    return urllib3.PoolManager()


def _save(
    answer: Any, path: Path, progress: Callable[[int, int], None], is_cancelled: Callable[[], bool]
) -> str:
    digest = hashlib.sha256()
    length = answer.headers.get("Content-Length", "")
    expected = int(length) if re.fullmatch(r"\d{1,18}", length) else 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        for chunk in answer.stream(_CHUNK, decode_content=False):
            if is_cancelled():
                raise Abandoned("the build was cancelled")
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
