"""The bounded buffer between the pump's thread and one attached client on the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

LIMIT = 1024 * 1024
"""Bytes that may wait for one client before its container is no longer read."""


class Subscriber:
    """What waits for one client. `put` and `is_full` are the pump's, the rest belongs to the loop."""

    def __init__(self, streams: frozenset[str], on_room: Callable[[], None]) -> None:
        self._streams = streams
        self._on_room = on_room
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._chunks: list[tuple[str, bytes]] = []
        self._pending = 0
        self._ready = asyncio.Event()
        self._ended = False
        self.progressed = time.monotonic()
        """When the client last took something, or was last not behind."""
        self.overrun = asyncio.Event()
        """Set once the client was given up, because it took nothing for too long."""

    def put(self, stream: str, chunk: bytes) -> None:
        """Add a chunk, however much waits already; the pump asks `is_full` afterwards."""
        if self._ended or stream not in self._streams:
            return
        with self._lock:
            if not self._pending:
                self.progressed = time.monotonic()
            wake = not self._chunks
            self._chunks.append((stream, chunk))
            self._pending += len(chunk)
        if wake:
            self._loop.call_soon_threadsafe(self._ready.set)

    def is_full(self) -> bool:
        """Whether the container should wait for this client."""
        return self._pending >= LIMIT and not self._ended

    def give_up(self) -> None:
        """End it from the pump's thread: the client took nothing for too long."""
        self._ended = True
        self._loop.call_soon_threadsafe(self.overrun.set)

    def end(self) -> None:
        """Nothing more will come; what waits is still to be delivered."""
        self._ended = True
        self._ready.set()

    async def take(self) -> list[tuple[str, bytes]]:
        """Everything that waits, in order; waits for something. Empty at the end."""
        while True:
            with self._lock:
                chunks, self._chunks = self._chunks, []
                if not chunks:
                    self._ready.clear()
            if chunks or self._ended:
                return chunks
            await self._ready.wait()

    def delivered(self, count: int) -> None:
        """The client has taken `count` bytes of what `take` gave."""
        with self._lock:
            before = self._pending
            self._pending -= count
            after = self._pending
            self.progressed = time.monotonic()
        if before >= LIMIT > after:
            self._on_room()
