"""Requests and responses of HTTP/1.1, as bytes and as objects (RFC 9112).

What a reader could take in two ways is refused, since that is how requests are smuggled past a proxy.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from longshore.api.connection import Connection

MAX_HEAD = 1 << 20
"""Bytes of request line and headers together; Go's default."""
MAX_HEADERS = 1000
"""Header lines of a request; joining those of one name costs the square of their number."""
MAX_DRAIN = 256 << 10
"""Bytes of a body nobody read that are skipped to keep the connection; beyond, it is closed, as in Go."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])\Z")


class ClientGone(ConnectionError):
    """The client closed the connection in the middle of what it was sending or receiving."""


class ProtocolError(Exception):
    """The bytes are not a request that may be answered; the connection ends with `status`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Response:
    """What to send. A body that is an iterator is sent chunk by chunk, and stopped with the client."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Request:
    """One request. Header names are lower case; `path` is percent-decoded; the body is read on demand."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Body
    connection: Connection
    keep_alive: bool
    chunks: bool
    """Whether the client understands a chunked answer (HTTP/1.1)."""
    version: tuple[int, ...] = ()
    """The API version that the request speaks; set by the router."""
    vars: dict[str, str] = field(default_factory=dict)
    """What the path's placeholders matched; set by the router."""
    common: dict[str, str] = field(default_factory=dict)
    """Headers that every answer carries; set by the router."""


class Body:
    """A request's body: an iterator of chunks that can be run once, or `read` whole."""

    def __init__(self, connection: Connection, length: int | None, *, expect_continue: bool) -> None:
        self.length = length
        """Bytes; None if the client sends chunks and has not said how many."""
        self._connection = connection
        self._left = length or 0
        self._expect_continue = expect_continue
        self._done = length == 0
        self._chunks = self._chunked() if length is None else self._sized()

    @property
    def empty(self) -> bool:
        """Whether there is no body, as far as the headers tell."""
        return self.length == 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def read(self, most: int) -> bytes:
        """The rest of the body. Raises ClientGone, or ProtocolError if it is more than `most` bytes."""
        if self._left > most:
            raise ProtocolError(413, "http: request body too large")
        body = bytearray()
        async for chunk in self._chunks:
            body += chunk
            if len(body) > most:
                raise ProtocolError(413, "http: request body too large")
        return bytes(body)

    @property
    def drainable(self) -> bool:
        """Whether what nobody read can be skipped: it is not much, and need not be asked for."""
        return self._done or not (self._expect_continue or self._left > MAX_DRAIN)

    async def drain(self) -> bool:
        """Skip what nobody read; False if it turned out to be too much."""
        if self._done:
            return True
        skipped = 0
        async for chunk in self._chunks:
            skipped += len(chunk)
            if skipped > MAX_DRAIN:
                return False
        # A body that broke off before has no more chunks, but what follows it is no request either.
        return self._done

    def _start(self) -> None:
        if self._expect_continue:
            self._expect_continue = False
            self._connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _sized(self) -> AsyncIterator[bytes]:
        self._start()
        while self._left:
            chunk = await self._connection.receive(self._left)
            if not chunk:
                raise ClientGone("unexpected EOF")
            self._left -= len(chunk)
            yield chunk
        self._done = True

    async def _chunked(self) -> AsyncIterator[bytes]:
        self._start()
        while size := _chunk_size(await self._connection.receive_until(b"\r\n", 4096)):
            while size:
                chunk = await self._connection.receive(size)
                if not chunk:
                    raise ClientGone("unexpected EOF")
                size -= len(chunk)
                yield chunk
            if await self._connection.receive_until(b"\r\n", 2):
                raise ProtocolError(400, "malformed chunked encoding")
        while await self._connection.receive_until(b"\r\n", MAX_HEAD):
            pass  # trailers
        self._done = True


def parse_request(head: bytes, connection: Connection) -> Request:
    """The request that `head` begins, its line ends and blank line removed. Raises ProtocolError."""
    line, *lines = head.split(b"\r\n")
    matched = _REQUEST_LINE.match(line)
    if matched is None:
        raise ProtocolError(400, "Bad Request")
    method, target, minor = matched.groups()
    headers = _parse_headers(lines)
    if minor == b"1" and "host" not in headers:
        raise ProtocolError(400, "Bad Request: missing required Host header")
    path, query = _split_target(target)
    options = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    expect = headers.get("expect", "").lower() == "100-continue"
    return Request(
        method=method.decode(),
        path=unquote(path),
        query=parse_qs(query, keep_blank_values=True),
        headers=headers,
        body=Body(connection, _body_length(headers), expect_continue=expect),
        connection=connection,
        keep_alive="close" not in options and (minor == b"1" or "keep-alive" in options),
        chunks=minor == b"1",
    )


def response_head(status: int, headers: dict[str, str]) -> bytes:
    """Status line, headers and the blank line."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    # A value from the engine (an image name, say) must not be able to add a header.
    lines += [f"{name}: {value}".replace("\r", " ").replace("\n", " ") for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"


def plain_error(status: int, message: str) -> bytes:
    """A whole answer for what is no proper request."""
    body = message.encode()
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    return response_head(status, headers) + body


def _split_target(target: bytes) -> tuple[str, str]:
    """Path and query, both still encoded, of a request target in origin or absolute form."""
    text = target.decode("latin-1")
    if not text.startswith("/"):
        absolute = re.match(r"https?://[^/?#]*", text)
        if absolute is None:
            raise ProtocolError(400, "Bad Request")
        text = text[absolute.end() :] or "/"
    path, _, query = text.partition("?")
    return path, query


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise ProtocolError(431, "Request Header Fields Too Large")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        # A name followed by a blank, or a folded line, is how requests are smuggled: neither is a token.
        if not colon or not _TOKEN.match(name) or b"\0" in value or b"\r" in value or b"\n" in value:
            raise ProtocolError(400, "Bad Request: malformed header")
        key, text = name.decode().lower(), value.strip(b" \t").decode("latin-1")
        if key in headers:
            if key in ("content-length", "transfer-encoding", "host") and headers[key] != text:
                raise ProtocolError(400, "Bad Request: conflicting headers")
            if key not in ("content-length", "transfer-encoding", "host"):
                text = f"{headers[key]}, {text}"
        headers[key] = text
    return headers


def _body_length(headers: dict[str, str]) -> int | None:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked":
            raise ProtocolError(501, "Unsupported transfer encoding")
        if length is not None:
            raise ProtocolError(400, "Bad Request: both Content-Length and Transfer-Encoding")
        return None
    if length is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,18}", length):
        raise ProtocolError(400, "Bad Request: bad Content-Length")
    return int(length)


def _chunk_size(line: bytes) -> int:
    size = line.split(b";", 1)[0].strip(b" \t")
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size):
        raise ProtocolError(400, "malformed chunked encoding")
    return int(size, 16)
