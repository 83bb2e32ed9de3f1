"""The writing end of a container's stdin, through all its runs."""

from __future__ import annotations

import asyncio
import os


class Stdin:
    """Writes whole buffers in order, one writer at a time. Owned by the event loop's thread.

    Between runs writers wait for the next one; a close then holds for the next run.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self._running = False
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()

    def open(self, fd: int | None) -> None:
        """A run begins; `fd` (owned from here on) is None if it has no stdin."""
        self._drop()
        if fd is not None:
            os.set_blocking(fd, False)
        self._fd = fd
        self._running = True
        self._signal()

    def reset(self) -> None:
        """The run is over. Whoever waited to write to it is refused."""
        self._drop()
        self._running = False
        self._signal()

    async def write(self, data: bytes) -> None:
        """Write all of `data`. BrokenPipeError if nobody reads or will read."""
        async with self._lock:
            fd = await self._started()
            view = memoryview(data)
            while view:
                if self._fd != fd or fd is None:
                    raise BrokenPipeError("the container's stdin is closed")
                try:
                    view = view[os.write(fd, view) :]
                except BlockingIOError:
                    await self._writable(fd)

    async def close(self) -> None:
        """Close stdin once what was written before has gone through."""
        async with self._lock:
            await self._started()
            self._drop()
            self._signal()

    async def _started(self) -> int | None:
        while not self._running:
            changed = self._changed
            await changed.wait()
            if not self._running:
                raise BrokenPipeError("the container did not start")
        return self._fd

    async def _writable(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        changed = self._changed
        loop.add_writer(fd, changed.set)
        try:
            await changed.wait()
        finally:
            if self._fd == fd:
                loop.remove_writer(fd)
                if changed is self._changed:
                    self._changed = asyncio.Event()

    def _drop(self) -> None:
        if self._fd is None:
            return
        asyncio.get_running_loop().remove_writer(self._fd)
        os.close(self._fd)
        self._fd = None

    def _signal(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
