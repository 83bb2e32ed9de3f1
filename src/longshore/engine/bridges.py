"""Between the event loop and threads: streams of bytes in, streams of bytes and messages out.

Archives are read and written by blocking code. These let it run in a thread while the other end of the
stream is a client of the event loop, with the pace of the slower and an end to both when either goes.
"""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from longshore.errors import Abandoned
from longshore.threads import in_own_thread, settled

log = logging.getLogger(__name__)

T = TypeVar("T")

_AHEAD = 16
"""Chunks that a producing thread may be ahead of a slow client."""
_WORTH = 1 << 20
"""Bytes of a body that are handed over at once."""
_LONG = 32 << 10
"""Characters that are dealt with in a few milliseconds."""


class BodyReader(io.RawIOBase):
    """A request's body as a blocking binary file, for one thread: one of its own (`in_own_thread`)."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._body = body
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(b"")
        self._cancelled = False
        self._waiting: Future[bytes] | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Wait for a chunk and give what fits. Raises Abandoned once the client has gone."""
        if not self._rest:
            self._rest = memoryview(self._next())
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def cancel(self) -> None:
        """Let the reading thread fail at its next read, and now if it waits for bytes."""
        self._cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()

    def check(self) -> None:
        """For work between two reads that takes long. Raises Abandoned after `cancel`."""
        if self._cancelled:
            raise Abandoned("the client has gone")

    def _next(self) -> bytes:
        self.check()
        try:
            self._waiting = asyncio.run_coroutine_threadsafe(self._chunk(), self._loop)
            if self._cancelled:
                self._waiting.cancel()
            return self._waiting.result()
        except (ConnectionError, CancelledError) as exc:
            raise Abandoned("the client has gone") from exc

    async def _chunk(self) -> bytes:
        """As much as is worth the way from thread to thread, which takes long where there is much to do."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in self._body:
            chunks.append(chunk)
            size += len(chunk)
            if size >= _WORTH:
                break
        return b"".join(chunks)


async def evaluated(size: int, work: Callable[[], T]) -> T:
    """Do what takes as long as a text of `size` characters is: beside the event loop if it is long."""
    return await asyncio.to_thread(work) if size > _LONG else work()


async def to_its_end(
    work: Callable[[], T],
    undo: Callable[[T], object] = lambda _: None,
    cancel: Callable[[], object] = lambda: None,
    begin: Callable[[Callable[[], T]], asyncio.Future[T]] | None = None,
) -> T:
    """Run `work` in a thread, and wait for it even if cancelled: its result is then given to `undo`.

    `cancel` is called first, to let it end early. `begin`: `in_own_thread` for work that waits for clients.
    """
    task: asyncio.Future[T]
    task = begin(work) if begin is not None else asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cancel()
        with suppress(asyncio.CancelledError):
            await settled([task])
        if not task.cancelled() and task.exception() is None:
            await asyncio.to_thread(undo, task.result())
        raise


async def while_wanted(
    work: Callable[[Callable[[], None]], T], undo: Callable[[T], object] = lambda _: None
) -> T:
    """As `to_its_end`, for long work: it has a thread of its own, and calls what it is given now and then.

    That raises Abandoned once cancelled.
    """
    wanted = True

    def check() -> None:
        if not wanted:
            raise Abandoned("nobody waits for it any more")

    def cancel() -> None:
        nonlocal wanted
        wanted = False

    return await to_its_end(lambda: work(check), undo, cancel, in_own_thread)


async def messages_of(work: Callable[[Callable[[T], None]], object]) -> AsyncIterator[T]:
    """Run `work(emit)` in a thread and yield what it emits; its exception is raised at the end."""
    loop = asyncio.get_running_loop()
    messages: asyncio.Queue[T | None] = asyncio.Queue()

    def emit(message: T) -> None:
        loop.call_soon_threadsafe(messages.put_nowait, message)

    task = in_own_thread(lambda: work(emit))
    task.add_done_callback(lambda _: loop.call_soon(messages.put_nowait, None))
    task.add_done_callback(_note_failure)
    while (message := await messages.get()) is not None:
        yield message
    await task


async def chunks_of(work: Callable[[Callable[[bytes], None]], object]) -> AsyncGenerator[bytes, None]:
    """Run `work(write)` in a thread and yield what it writes, at the pace at which it is taken."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)
    gone = False

    def write(chunk: bytes) -> None:
        if not gone:
            room.acquire()
        if gone:
            raise Abandoned("the client has gone")
        loop.call_soon_threadsafe(chunks.put_nowait, chunk)

    task = in_own_thread(lambda: work(write))
    task.add_done_callback(lambda _: chunks.put_nowait(None))
    task.add_done_callback(_note_failure)
    try:
        while (chunk := await chunks.get()) is not None:
            room.release()
            yield chunk
        await task
    finally:
        gone = True
        room.release()


def _note_failure(task: asyncio.Future[Any]) -> None:
    """Fetch the failure, which nobody else does once the client has gone."""
    if not task.cancelled() and (failure := task.exception()) is not None:
        log.debug("a stream's work failed: %s", failure)
