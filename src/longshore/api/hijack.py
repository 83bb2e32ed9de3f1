"""Taking a connection over from HTTP, for attach and exec: raw streams and WebSockets."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import struct

from longshore.api.connection import Connection
from longshore.api.http import Request
from longshore.errors import InvalidParameter
from longshore.types.stream import RawConnection

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

_READ = 64 << 10
_MAX_FRAME = 1 << 20
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10


def hijack(request: Request, *, multiplexed: bool) -> RawConnection:
    """Answer `request` with a stream in both directions and hand over the connection.

    A client that asked for an upgrade gets 101 and, from API 1.42 on, is told by the content type whether
    stdout and stderr are multiplexed. Others get 200 and the bytes, as clients from before upgrades expect.
    """
    content_type = MULTIPLEXED_STREAM if multiplexed and request.version >= (1, 42) else RAW_STREAM
    if "upgrade" in request.headers:
        head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\n"
        head += "Connection: Upgrade\r\nUpgrade: tcp\r\n"
    else:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in request.common.items())
    request.connection.send(head.encode() + b"\r\n")
    return HijackedConnection(request.connection)


def check_h2c(request: Request) -> None:
    """Raises InvalidParameter unless the client wants to go on in HTTP/2 (`Upgrade: h2c`)."""
    wanted = request.headers.get("upgrade", "")
    if not wanted:
        raise InvalidParameter("no upgrade proto in request")
    if wanted != "h2c":
        raise InvalidParameter(f"protocol {wanted} not supported")


def hijack_h2c(request: Request) -> RawConnection:
    """Answer with 101 and hand over the connection, on which HTTP/2 begins anew.

    The daemon's end does not wait for who speaks on it. Raises InvalidParameter as `check_h2c` does.
    """
    check_h2c(request)
    request.connection.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    )
    request.connection.stream()
    return HijackedConnection(request.connection)


def accept_websocket(request: Request) -> RawConnection:
    """Answer a WebSocket handshake (RFC 6455). Raises InvalidParameter if it is none."""
    key = request.headers.get("sec-websocket-key", "")
    upgrade = request.headers.get("upgrade", "").lower()
    if upgrade != "websocket" or request.headers.get("sec-websocket-version") != "13" or not key:
        raise InvalidParameter("not a WebSocket handshake: version 13 of RFC 6455 is expected")
    digest = hashlib.sha1(key.encode("latin-1") + _WEBSOCKET_GUID, usedforsecurity=False).digest()
    request.connection.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
    return WebSocketConnection(request.connection)


class HijackedConnection:
    """A RawConnection over what was an HTTP connection; bytes received behind the request come first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self) -> bytes:
        return await self._connection.receive(_READ)

    async def write(self, data: bytes) -> None:
        self._connection.send(data)
        await self._connection.drain()

    async def write_eof(self) -> None:
        self._connection.send_eof()

    async def close(self) -> None:
        self._connection.close()


class WebSocketConnection:
    """A RawConnection in binary WebSocket messages; a close frame ends the direction that sent it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._close_sent = False

    async def read(self) -> bytes:
        while True:
            opcode, payload = await self._read_frame()
            if opcode in (_CONTINUATION, _TEXT, _BINARY):
                if payload:
                    return payload
            elif opcode == _PING:
                self._connection.send(_frame(_PONG, payload))
            elif opcode == _CLOSE:
                return b""

    async def write(self, data: bytes) -> None:
        if self._close_sent:
            raise BrokenPipeError("the WebSocket is closed")
        self._connection.send(_frame(_BINARY, data))
        await self._connection.drain()

    async def write_eof(self) -> None:
        if not self._close_sent:
            self._close_sent = True
            self._connection.send(_frame(_CLOSE, struct.pack("!H", 1000)))

    async def close(self) -> None:
        with contextlib.suppress(OSError):  # the client left first
            await self.write_eof()
        self._connection.close()

    async def _read_frame(self) -> tuple[int, bytes]:
        start = await self._exactly(2)
        if start is None:
            return _CLOSE, b""
        opcode, size = start[0] & 0x0F, start[1] & 0x7F
        if size == 126:
            size = struct.unpack("!H", await self._must(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", await self._must(8))[0]
        if not start[1] & 0x80 or start[0] & 0x70 or size > _MAX_FRAME:
            raise ConnectionAbortedError("the client broke the WebSocket protocol")
        mask = await self._must(4)
        payload = await self._must(size)
        if not payload:
            return opcode, b""
        key = int.from_bytes((mask * (size // 4 + 1))[:size])
        return opcode, (int.from_bytes(payload) ^ key).to_bytes(size)

    async def _must(self, size: int) -> bytes:
        data = await self._exactly(size)
        if data is None:
            raise ConnectionAbortedError("the client left in the middle of a WebSocket frame")
        return data

    async def _exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            chunk = await self._connection.receive(size - len(data))
            if not chunk:
                return None
            data += chunk
        return bytes(data)


def _frame(opcode: int, payload: bytes) -> bytes:
    start = bytes([0x80 | opcode])
    if len(payload) < 126:
        return start + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return start + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return start + b"\x7f" + struct.pack("!Q", len(payload)) + payload
