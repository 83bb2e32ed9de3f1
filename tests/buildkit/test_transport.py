"""gRPC's connection: what a peer may make us keep."""

from __future__ import annotations

import asyncio

import pytest
from grpclib.client import Handler
from h2.connection import H2Connection

from longshore.buildkit import transport


class _Flood:
    """A peer that pings as often as it is let, and takes nothing until it is told to."""

    def __init__(self) -> None:
        self.takes = asyncio.Event()
        self.sent = self.taken = 0
        self._peer = H2Connection()
        self._peer.initiate_connection()

    async def read(self) -> bytes:
        if self.taken:
            return b""
        for _ in range(100):
            self._peer.ping(b"x" * 8)
        data = self._peer.data_to_send()
        self.sent += len(data)
        if self.sent > 1 << 20:
            raise AssertionError("nobody makes the peer wait")
        return data

    async def write(self, data: bytes) -> None:
        await self.takes.wait()
        self.taken += len(data)

    async def write_eof(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""


def test_pings_are_answered_as_fast_as_the_peer_takes_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_FLOODED", 64 << 10)

    async def work() -> None:
        peer = _Flood()
        protocol = transport.LimitedProtocol(Handler(), client=False)
        running = asyncio.create_task(transport.start_protocol(peer, protocol))
        sent = -1
        while peer.sent != sent:  # until it is made to wait
            sent = peer.sent
            for _ in range(20):
                await asyncio.sleep(0)
        assert 64 << 10 <= sent < 128 << 10
        assert not running.done()
        peer.takes.set()
        await running
        assert peer.taken > 64 << 10

    asyncio.run(work())
