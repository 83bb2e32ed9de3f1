"""HTTP/1.1 on one connection, made for an API whose connections change into raw streams.

Attach and exec take the connection over, bytes already received included, and need each direction to end on
its own (`echo x | docker run -i …`), through TLS as well. Owning the few rules of RFC 9112 that a server
needs makes that a matter of reading on, and costs an eighth of the memory of a general HTTP server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from email.utils import formatdate
from typing import Any, TypeVar, cast

from longshore.api.http import (
    MAX_HEAD,
    ClientGone,
    ProtocolError,
    Request,
    Response,
    parse_request,
    plain_error,
    response_head,
)
from longshore.api.tls import TlsChannel
from longshore.errors import Abandoned

log = logging.getLogger(__name__)

READ_AHEAD = 256 << 10
"""Bytes kept unread before the client is made to wait."""

HEAD_TIMEOUT = 300.0
"""Seconds a client has for the head of a request once it began; for the first one, since it connected."""

T = TypeVar("T")

Answer = Callable[[Request], Awaitable[Response | None]]
"""Answers a request; None if the connection was taken over and is finished with."""


class Connection(asyncio.Protocol):
    """One client. Requests are answered in turn; `answer` sees each, and may take the connection over.

    An answer that is being computed runs to its end even if the client leaves, since a stop or a create
    must not be left half done, but for what is done by `while_here`; a body that is being streamed is
    cancelled with the client.
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
        self._forsaken: Callable[[], object] | None = None
        self._idle = True
        self._served = False
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
        self._end_with_client()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._eof = True
        self._open.discard(self)
        self._readable.set()
        self._writable.set()
        self._end_with_client()

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
        self._resume_reading()
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

    async def while_here(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what is of use to this client alone: cancelled once the client leaves. Raises ClientGone."""
        task = asyncio.get_running_loop().create_task(work)
        self._forsaken = task.cancel
        try:
            if self._eof:
                task.cancel()
            return await task
        except asyncio.CancelledError:
            if self._eof and task.cancelled():
                raise ClientGone("the client closed the connection") from None
            raise
        finally:
            self._forsaken = None

    def stream(self) -> None:
        """What is being answered is no more than a stream: it ends with the client, and with the daemon."""
        self._streaming = True

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
                self._idle = self._served = True
        except ProtocolError as exc:
            with contextlib.suppress(ClientGone):
                self.send(plain_error(exc.status, str(exc)))
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
            if self._served and not self._buffer and not await self._await_input():
                return None
            try:
                async with asyncio.timeout(HEAD_TIMEOUT):
                    head = await self.receive_until(b"\r\n\r\n", MAX_HEAD)
            except (ClientGone, TimeoutError):
                return None
            head = head.lstrip(b"\r\n")
            if head:
                return parse_request(head, self)

    async def _await_input(self) -> bool:
        """Whether the client sends anything more; an idle connection may stay as long as it likes."""
        while not self._buffer and not self._eof:
            self._readable.clear()
            await self._readable.wait()
        return bool(self._buffer)

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
        head = response_head(response.status, headers)
        if isinstance(response.body, bytes):
            self.send(head if request.method == "HEAD" else head + response.body)
            await self.drain()
        else:
            with contextlib.suppress(ClientGone):  # Then the body is begun all the same, to let go of things.
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
        except (ConnectionError, Abandoned) as exc:
            log.debug("a client left its answer: %s", exc)
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

    def _end_with_client(self) -> None:
        if self._forsaken is not None:
            self._forsaken()
        if self._streaming and self._task is not None:
            self._task.cancel()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None and not self._lost:
            self._reading_paused = False
            self._transport.resume_reading()

    def _flush_tls(self) -> None:
        if self._tls is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._tls.outgoing())
