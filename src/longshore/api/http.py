"""HTTP/1.1 on one connection, made for an API whose connections change into raw streams.

Attach and exec take the connection over, bytes already received included, and need each direction to end on
its own (`echo x | docker run -i …`), through TLS as well. Owning the few rules of RFC 9112 that a server
needs makes that a matter of reading on, and costs an eighth of the memory of a general HTTP server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qs, unquote

from longshore.api.tls import TlsChannel

log = logging.getLogger(__name__)

MAX_HEAD = 1 << 20
"""Bytes of request line and headers together; Go's default."""
MAX_DRAIN = 256 << 10
"""Bytes of a body nobody read that are skipped to keep the connection; beyond, it is closed, as in Go."""
READ_AHEAD = 256 << 10
"""Bytes kept unread before the client is made to wait."""

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


Answer = Callable[[Request], Awaitable[Response | None]]
"""Answers a request; None if the connection was taken over and is finished with."""


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

    async def read(self) -> bytes:
        """The rest of the body. Raises ClientGone."""
        return b"".join([chunk async for chunk in self._chunks])

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
        return True

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


class Connection(asyncio.Protocol):
    """One client. Requests are answered in turn; `answer` sees each, and may take the connection over.

    An answer that is being computed runs to its end even if the client leaves, since a stop or a create
    must not be left half done; a body that is being streamed is cancelled with the client.
    """

    def __init__(
        self, answer: Answer, open_connections: set[Connection], tls: TlsChannel | None = None
    ) -> None:
        self._answer = answer
        self._open = open_connections
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._buffer = bytearray()
        self._eof = False
        self._lost = False
        self._streaming = False
        self._idle = True
        self._reading_paused = False
        self._readable: asyncio.Event = asyncio.Event()
        self._writable: asyncio.Event = asyncio.Event()
        self._writable.set()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, but have their methods.
        self._transport = cast(asyncio.Transport, transport)
        self._open.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        if self._tls is not None:
            try:
                data = self._tls.receive(data)
            except OSError as exc:  # ssl.SSLError is one
                log.info("TLS: %s", exc)
                self._flush_tls()
                self.abort()
                return
            self._flush_tls()
            if self._tls.peer_closed:
                self._buffer += data
                self.eof_received()
                return
        self._buffer += data
        self._readable.set()
        if len(self._buffer) > READ_AHEAD and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        self._readable.set()
        if self._streaming and self._task is not None:
            self._task.cancel()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._eof = True
        self._open.discard(self)
        self._readable.set()
        self._writable.set()
        if self._streaming and self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # what Body, RawConnection and the server use

    async def receive(self, most: int) -> bytes:
        """At least one byte and at most `most`; b"" once the client has finished sending."""
        while not self._buffer:
            if self._eof:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = bytes(self._buffer[:most])
        del self._buffer[:most]
        self._resume_reading()
        return data

    async def receive_until(self, mark: bytes, most: int) -> bytes:
        """What comes before `mark`, which is consumed.

        Raises ClientGone, or ProtocolError if it is more than `most` bytes.
        """
        searched = 0
        while (found := self._buffer.find(mark, searched)) < 0:
            if len(self._buffer) > most:
                raise ProtocolError(431, "Request Header Fields Too Large")
            if self._eof:
                raise ClientGone("unexpected EOF")
            searched = max(0, len(self._buffer) - len(mark) + 1)
            self._readable.clear()
            self._resume_reading()
            await self._readable.wait()
        if found > most:
            raise ProtocolError(431, "Request Header Fields Too Large")
        data = bytes(self._buffer[:found])
        del self._buffer[: found + len(mark)]
        return data

    def send(self, data: bytes) -> None:
        """Queue `data`. Raises ClientGone."""
        if self._lost or self._transport is None or self._transport.is_closing():
            raise ClientGone("the client closed the connection")
        if self._tls is not None:
            data = self._tls.seal(data)
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client keeps up. Raises ClientGone."""
        await self._writable.wait()
        if self._lost:
            raise ClientGone("the client closed the connection")

    def send_eof(self) -> None:
        """Finish sending; receiving goes on."""
        if self._lost or self._transport is None or self._transport.is_closing():
            return
        if self._tls is not None:
            # The client reads close_notify as the end; the TCP direction must stay open for TLS's own sake.
            self._tls.close()
            self._flush_tls()
        elif self._transport.can_write_eof():
            with contextlib.suppress(OSError):
                self._transport.write_eof()

    def close(self) -> None:
        """Send what is queued, then close."""
        if self._transport is not None and not self._transport.is_closing():
            self.send_eof()
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def shut_down(self) -> asyncio.Task[None] | None:
        """Close if no request is being answered, or only streamed; else return the task that answers it."""
        if self._task is None or self._task.done():
            return None
        if self._idle or self._streaming:
            self._task.cancel()
        return self._task

    # requests

    async def _serve(self) -> None:
        try:
            while (request := await self._next_request()) is not None:
                self._idle = False
                response = await self._answer(request)
                if response is None:
                    break
                if not await self._respond(request, response):
                    break
                self._idle = True
        except ProtocolError as exc:
            with contextlib.suppress(ClientGone):
                self.send(_plain_error(exc.status, str(exc)))
        except ConnectionError:
            pass
        except asyncio.CancelledError:
            if not self._lost:
                self.abort()
        finally:
            self.close()
            self._open.discard(self)

    async def _next_request(self) -> Request | None:
        while True:
            try:
                head = await self.receive_until(b"\r\n\r\n", MAX_HEAD)
            except ClientGone:
                return None
            head = head.lstrip(b"\r\n")
            if head:
                return self._parse(head)

    def _parse(self, head: bytes) -> Request:
        line, *lines = head.split(b"\r\n")
        matched = _REQUEST_LINE.match(line)
        if matched is None:
            raise ProtocolError(400, "Bad Request")
        method, target, minor = matched.groups()
        headers = _parse_headers(lines)
        if minor == b"1" and "host" not in headers:
            raise ProtocolError(400, "Bad Request: missing required Host header")
        path, query = _split_target(target)
        connection = {word.strip().lower() for word in headers.get("connection", "").split(",")}
        expect = headers.get("expect", "").lower() == "100-continue"
        return Request(
            method=method.decode(),
            path=unquote(path),
            query=parse_qs(query, keep_blank_values=True),
            headers=headers,
            body=Body(self, _body_length(headers), expect_continue=expect),
            connection=self,
            keep_alive="close" not in connection and (minor == b"1" or "keep-alive" in connection),
            chunks=minor == b"1",
        )

    async def _respond(self, request: Request, response: Response) -> bool:
        """Send `response`; whether another request may follow on the connection."""
        keep_alive = request.keep_alive
        headers = {**request.common, **response.headers, "Date": formatdate(usegmt=True)}
        streamed = not isinstance(response.body, bytes)
        if streamed:
            if request.chunks:
                headers["Transfer-Encoding"] = "chunked"
            else:
                keep_alive = False
        elif response.status >= 200 and response.status not in (204, 304):
            headers.setdefault("Content-Length", str(len(response.body)))  # type: ignore[arg-type]
        keep_alive = keep_alive and (streamed or request.body.drainable)
        if not keep_alive:
            headers["Connection"] = "close"
        head = _head(response.status, headers)
        if isinstance(response.body, bytes):
            self.send(head if request.method == "HEAD" else head + response.body)
            await self.drain()
        else:
            self.send(head)
            if not await self._stream(response.body, chunked=request.chunks):
                return False
        return keep_alive and await self._skip_body(request)

    async def _skip_body(self, request: Request) -> bool:
        with contextlib.suppress(TimeoutError, ClientGone, ProtocolError):
            async with asyncio.timeout(5):
                if await request.body.drain():
                    return True
        # Closing with input unread resets a TCP connection, and the answer may be lost with it.
        self.send_eof()
        await asyncio.sleep(0.5)
        return False

    async def _stream(self, body: AsyncIterator[bytes], *, chunked: bool) -> bool:
        self._streaming = True
        try:
            if self._eof and self._task is not None:
                self._task.cancel()  # left already, but the body still gets the chance to let go of things
            async for chunk in body:
                if chunk:
                    self.send(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                    await self.drain()
            self.send(b"0\r\n\r\n" if chunked else b"")
        except ConnectionError:
            return False
        except Exception:
            # The status is sent already. Breaking the connection off is what tells the client.
            log.exception("a streamed answer broke off")
            self.abort()
            return False
        finally:
            self._streaming = False
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()
        return True

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None and not self._lost:
            self._reading_paused = False
            self._transport.resume_reading()

    def _flush_tls(self) -> None:
        if self._tls is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._tls.outgoing())


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


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    # A value from the engine (an image name, say) must not be able to add a header.
    lines += [f"{name}: {value}".replace("\r", " ").replace("\n", " ") for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"


def _plain_error(status: int, message: str) -> bytes:
    body = message.encode()
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    return _head(status, headers) + body
