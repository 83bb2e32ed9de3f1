"""Telling dockerd's database what runs, for a dockerd that takes over running containers (`live-restore`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from longshore.network.store import Store

DELAY = 1.0
"""Seconds between a change and its writing: of many changes one is written, and no start waits for it."""


class Sharing:
    """Calls `write` a moment after sandboxes in the store have changed. Belongs to the running event loop."""

    def __init__(self, store: Store, write: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._behind = False
        store.changed = self._changed

    async def close(self) -> None:
        """Write no more; what is being written is waited for."""
        self._store.changed = lambda _: None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _changed(self, kind: str) -> None:
        if kind == "sandbox":
            self._loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        self._behind = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._catch_up(), name="sandboxes for dockerd")

    async def _catch_up(self) -> None:
        while self._behind:
            await asyncio.sleep(DELAY)
            self._behind = False
            await self._write()
