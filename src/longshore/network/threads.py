"""Work that is waited for, whatever becomes of who asked for it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_MOST = 512
"""Threads: so many calls of plug-ins may hang before others wait for them."""
_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = WeakKeyDictionary()
"""For plug-ins: the loop's own few threads are what the rest of the engine needs."""


async def in_thread(call: Callable[..., T], *arguments: object) -> T:
    """Run `call` in a thread and wait for its end even when cancelled: a thread cannot be stopped, and what
    it makes must be known before anything is undone."""
    return await _to_its_end(asyncio.ensure_future(asyncio.to_thread(call, *arguments)))


async def in_spare_thread(call: Callable[..., T], *arguments: object) -> T:
    """As `in_thread`, for what may ask a plug-in, which may take minutes."""
    loop = asyncio.get_running_loop()
    pool = _pools.get(loop)
    if pool is None:
        pool = _pools[loop] = ThreadPoolExecutor(_MOST, "network")
    context = contextvars.copy_context()
    return await _to_its_end(loop.run_in_executor(pool, partial(context.run, call, *arguments)))


async def to_its_end(
    work: Coroutine[Any, Any, T], undo: Callable[[T], Coroutine[Any, Any, object]] | None = None
) -> T:
    """Await `work`, which is not cancelled with the caller: what it has made by its end `undo` takes back."""
    return await _to_its_end(asyncio.ensure_future(work), undo)


async def _to_its_end(
    work: asyncio.Future[T], undo: Callable[[T], Coroutine[Any, Any, object]] | None = None
) -> T:
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await _ended(work)
        if undo is not None and not work.cancelled() and work.exception() is None:
            await _ended(asyncio.ensure_future(undo(work.result())))
        raise


async def _ended(work: asyncio.Future[Any]) -> None:
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            continue  # It is raised once there is nothing to wait for any more.
