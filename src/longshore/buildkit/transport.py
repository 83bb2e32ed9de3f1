"""gRPC over a connection that is there already: what HTTP handed over, or a stream inside another one.

grpclib wants an asyncio transport. This one reads from and writes to a `RawConnection`, so that unix
sockets, TLS and tunnels are all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import AbstractHandler, Connection, EventsProcessor, H2Protocol, Stream
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import UnknownFrameReceived
from h2.settings import SettingCodes

from longshore.types.stream import RawConnection

log = logging.getLogger(__name__)

MAX_MESSAGE = 16 << 20
"""Bytes of one message that are received; containerd's and BuildKit's limit."""

_WINDOW = 1 << 20
"""Bytes that a peer may send ahead of who reads them, on one stream and on the connection."""
_HIGH = 1 << 20
"""Bytes waiting to be sent beyond which nobody writes more."""
_FLOODED = 4 << 20
"""Bytes waiting to be sent beyond which nothing is read: pings and the like are answered without end."""

# Of so many ended streams is remembered how they ended; the default would grow to 20 MB.
H2Connection.MAX_CLOSED_STREAMS = 256


class LimitedProtocol(H2Protocol):
    """grpclib's protocol, but a message may not be larger than `MAX_MESSAGE`."""

    def __init__(self, handler: AbstractHandler, *, client: bool) -> None:
        config = Configuration(
            http2_connection_window_size=4 * _WINDOW, http2_stream_window_size=_WINDOW, _keepalive_time=None
        )
        h2_config = H2Configuration(
            client_side=client,
            # Who sends a header that is not ASCII is refused by grpclib in the middle of its work otherwise.
            header_encoding="latin-1",
            validate_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_inbound_headers=False,
            normalize_outbound_headers=False,
        )
        super().__init__(handler, config.__for_client__(), h2_config)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = H2Connection(config=self.h2_config)
        connection.initiate_connection()
        window = connection.local_settings.initial_window_size
        connection.increment_flow_control_window(self.config.http2_connection_window_size - window)
        connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self.config.http2_stream_window_size})
        self.connection = _LimitedConnection(
            connection, cast(asyncio.Transport, transport), config=self.config
        )
        self.connection.flush()
        self.processor = EventsProcessor(self.handler, self.connection)
        # Frames of extensions are to be ignored (RFC 9113, 5.5); grpclib stumbles over them.
        self.processor.processors[UnknownFrameReceived] = _ignore


class _LimitedConnection(Connection):
    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> Stream:
        return _LimitedStream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)


class _LimitedStream(Stream):
    async def recv_data(self, size: int) -> bytes:
        if size > MAX_MESSAGE:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"received message larger than max ({size} vs. {MAX_MESSAGE})",
            )
        return await super().recv_data(size)


def start_protocol(connection: RawConnection, protocol: LimitedProtocol) -> Coroutine[Any, Any, None]:
    """Let `protocol` speak over `connection`; await what is returned.

    That ends with either side, and closes the connection.
    """
    transport = _Transport(connection)
    protocol.connection_made(transport)
    transport.on_room = protocol.resume_writing
    transport.on_full = protocol.pause_writing
    return _run(connection, protocol, transport)


async def _run(connection: RawConnection, protocol: LimitedProtocol, transport: _Transport) -> None:
    tasks = [
        asyncio.create_task(_receive(connection, protocol, transport), name="h2c-receive"),
        asyncio.create_task(transport.flush(), name="h2c-send"),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done() and not transport.is_closing():
            transport.close()
    finally:
        protocol.connection_lost(None)
        transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            await connection.close()


async def _receive(connection: RawConnection, protocol: LimitedProtocol, transport: _Transport) -> None:
    try:
        while data := await connection.read():
            protocol.data_received(data)
            await transport.kept_up()
    except OSError:
        pass  # The peer is gone.
    except Exception as exc:
        # h2 and grpclib raise for frames that they do not know, or that make no sense.
        log.info("a gRPC connection broke off: %s: %s", type(exc).__name__, exc)


def _ignore(_: object) -> None:
    """An event that is of no meaning here."""


def _nothing() -> None:
    """Nobody wants to be told."""


class _Transport(asyncio.Transport):
    """The writing half; what is written waits for `flush` to send it."""

    def __init__(self, connection: RawConnection) -> None:
        super().__init__()
        self._connection = connection
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._full = False
        self._closing = False
        self._aborted = False
        self._changed = asyncio.Event()
        self._sent = asyncio.Event()
        self.on_full: Callable[[], None] = _nothing
        self.on_room: Callable[[], None] = _nothing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue `data`; nothing after a close."""
        if self._closing:
            return
        self._waiting.append(bytes(data))
        self._size += len(data)
        self._changed.set()
        if self._size > _HIGH and not self._full:
            self._full = True
            self.on_full()

    async def flush(self) -> None:
        """Send what is queued, until the transport is closed and the queue empty, or the peer gone."""
        with contextlib.suppress(OSError):
            while not self._aborted:
                while self._waiting and not self._aborted:
                    data = b"".join(self._waiting)
                    self._waiting.clear()
                    await self._connection.write(data)
                    self._size -= len(data)
                    self._sent.set()
                    if self._full and self._size <= _HIGH // 2:
                        self._full = False
                        self.on_room()
                if self._closing:
                    break
                self._changed.clear()
                await self._changed.wait()

    async def kept_up(self) -> None:
        """Wait until the peer has taken most of what it is sent."""
        while self._size > _FLOODED:
            self._sent.clear()
            await self._sent.wait()

    def close(self) -> None:
        """Send what is queued, then end."""
        self._closing = True
        self._changed.set()

    def abort(self) -> None:
        """End at once."""
        self._aborted = self._closing = True
        self._changed.set()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """There is no socket here that grpclib might want to tune."""
        return default
