"""Sending a tree to a client: what it may ask for, and what is no file."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Cardinality
from harness import SessionPeer
from harness.session import SEND

from longshore.buildkit.filesend import send_tree
from longshore.buildkit.proto import session_pb2 as pb
from longshore.buildkit.sessions import Session
from longshore.errors import EngineError
from longshore.layers.idmap import IdMap


class _Raw:
    """A RawConnection over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def read(self) -> bytes:
        return await self._loop.sock_recv(self._sock, 65536)

    async def write(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def write_eof(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        self._sock.close()


def _send(root: Path, receive: Callable[[Any], Awaitable[None]]) -> None:
    """Send `root` to a client that does `receive`."""
    serve = {SEND: (receive, Cardinality.STREAM_STREAM, pb.Packet, pb.Packet)}
    peer = SessionPeer(root, serve=serve)
    ours, theirs = socket.socketpair()

    async def work() -> None:
        session = Session("x", "", peer.methods())
        running = asyncio.create_task(session.run(_Raw(ours)))
        await asyncio.sleep(0)
        try:
            await send_tree(session, 0, root, IdMap())
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    peer.start()
    try:
        peer.serve_on(theirs)
        asyncio.run(work())
    finally:
        peer.__exit__(None, None, None)


async def _described(stream: Any) -> list[pb.Stat]:
    found = []
    async for packet in stream:
        if packet.type == pb.Packet.PACKET_ERR or not packet.HasField("stat"):
            break
        found.append(packet.stat)
    return found


async def _content(stream: Any, number: int) -> bytes:
    await stream.send_message(pb.Packet(type=pb.Packet.PACKET_REQ, ID=number))
    content = b""
    async for packet in stream:
        if not packet.data:
            break
        content += packet.data
    return content


def test_a_socket_is_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    got: dict[bytes, tuple[int, bytes]] = {}

    async def receive(stream: Any) -> None:
        for number, stat in enumerate(await _described(stream)):
            got[stat.path] = stat.mode >> 12, await _content(stream, number)
        await stream.send_message(pb.Packet(type=pb.Packet.PACKET_FIN))

    _send(tmp_path, receive)
    assert got == {b"f": (0, b"content"), b"s": (0, b"")}


def test_a_file_is_asked_for_once(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content")

    async def receive(stream: Any) -> None:
        await _described(stream)
        while True:
            await stream.send_message(pb.Packet(type=pb.Packet.PACKET_REQ, ID=0))

    with pytest.raises(EngineError, match="invalid file id 0"):
        _send(tmp_path, receive)


def test_directories_without_an_end(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(300):
        deep /= "d"
    deep.mkdir(parents=True)

    async def receive(stream: Any) -> None:
        await _described(stream)

    with pytest.raises(EngineError, match="too deep"):
        _send(tmp_path, receive)
