"""Blocking work beside the event loop, which ends when nobody waits for it; and places for so much of it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from longshore.images.registry.transport import Cancellation
from longshore.threads import in_own_thread, settled

T = TypeVar("T")


async def in_thread(
    work: Callable[[Cancellation], T],
    discard: Callable[[T], object] = lambda _: None,
    *,
    abandon: bool = False,
) -> T:
    """Run `work` in a thread of its own: transfers take long, and must not keep others from the pool.

    When cancelled, the work is told and waited for; if it came to its end all the same, `discard` takes its
    result back. Work that touches nothing but the network may be left to itself (`abandon`): it may have to
    wait for a registry that does not answer before it notices.
    """
    cancellation = Cancellation()
    result = in_own_thread(lambda: work(cancellation), "registry")
    try:
        return await asyncio.shield(result)
    except asyncio.CancelledError:
        cancellation.cancel()
        result.add_done_callback(lambda done: _discard(done, discard))
        if not abandon:
            await settled([result])
        raise


def _discard(result: asyncio.Future[T], discard: Callable[[T], object]) -> None:
    if not result.cancelled() and result.exception() is None:
        threading.Thread(target=discard, args=(result.result(),), daemon=True).start()


class Slots:
    """So many at once, the first come first; the number may change at any time."""

    def __init__(self, capacity: Callable[[], int]) -> None:
        self._capacity = capacity
        self._used = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def one(self, waiting: Callable[[], None]) -> AsyncIterator[None]:
        """Hold a place; `waiting` is called if that takes time."""
        if self._is_full():
            waiting()
        while self._is_full():
            turn = asyncio.get_running_loop().create_future()
            self._waiters.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake()
                raise
        self._used += 1
        try:
            yield
        finally:
            self._used -= 1
            self._wake()

    def _is_full(self) -> bool:
        return self._used >= max(self._capacity(), 1)

    def _wake(self) -> None:
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
