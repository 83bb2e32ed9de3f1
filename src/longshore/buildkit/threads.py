"""Blocking work in threads that is never left alone with what it uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from longshore.threads import settled

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread, and wait for it even if cancelled: what it uses is closed after it."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    finally:
        await settled([task])
