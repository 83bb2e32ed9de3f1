"""Threads that are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def in_thread(call: Callable[..., None], *arguments: object) -> None:
    """Run `call` in a thread and wait for its end even when cancelled: a thread cannot be stopped, and what
    it makes must be known before anything is undone."""
    work = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
