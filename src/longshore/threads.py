"""Work beside the event loop that takes long, and waiting for what must not be left alone."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def in_own_thread(work: Callable[[], T], name: str = "stream") -> asyncio.Future[T]:
    """Begin `work` that takes long, or waits for a client as long as the client likes.

    The threads that all others share are few: who stays in one of them keeps everybody waiting.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.cancelled():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, error = None, None
        try:
            value = work()
        except BaseException as exc:
            error = exc
        with suppress(RuntimeError):  # The loop has ended: nobody is left to tell.
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True).start()
    return result


async def settled(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Wait until all have ended, whatever became of them; a cancellation waits until then, too."""
    cancelled = False
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
