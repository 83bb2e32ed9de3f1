"""Builds that other requests refer to by an id: to cancel them, or to bring them their context."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from longshore.errors import Conflict, InvalidParameter, System

PATIENCE = 5.0
"""Seconds that a build and the request with its context wait for each other, as in dockerd."""

Body = AsyncIterator[bytes]


class BuildJobs:
    """The builds under way that have an id. Owned by the event loop's thread."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._uploads: dict[str, _Upload] = {}

    @contextmanager
    def running(self, id: str, task: asyncio.Task[Any]) -> Iterator[None]:
        """Let `task` be cancelled by the id meanwhile. Raises Conflict if another build has it."""
        if id in self._tasks:
            raise Conflict(f"build {id} is under way already")
        if id:
            self._tasks[id] = task
        try:
            yield
        finally:
            self._tasks.pop(id, None)

    def cancel(self, id: str) -> None:
        """End the build of that id; nothing happens if there is none."""
        task = self._tasks.get(id)
        if task is not None:
            task.cancel()

    async def bring(self, id: str, body: Body) -> None:
        """Give `body` to the build of that id, and wait until it is read.

        Raises System if none asks, InvalidParameter without an id, Conflict.
        """
        upload = self._upload(id)
        if upload.body is not None:
            raise Conflict(f"build {id} has its context already")
        upload.body = body
        upload.here.set()
        try:
            async with asyncio.timeout(PATIENCE):
                await upload.asked.wait()
        except TimeoutError:
            raise System(f"build {id} did not ask for its context: context deadline exceeded") from None
        finally:
            self._forget(id, upload)
        await upload.read.wait()

    @asynccontextmanager
    async def brought(self, id: str) -> AsyncIterator[Body]:
        """What another request brings for the build of that id, which is told when it is done with.

        Raises System if it does not come, InvalidParameter without an id.
        """
        upload = self._upload(id)
        try:
            async with asyncio.timeout(PATIENCE):
                await upload.here.wait()
        except TimeoutError:
            raise System(f"no context came for build {id}: context deadline exceeded") from None
        finally:
            self._forget(id, upload)
        upload.asked.set()
        assert upload.body is not None
        try:
            yield upload.body
        finally:
            upload.read.set()

    def _upload(self, id: str) -> _Upload:
        if not id:  # Or one build would get the context of another.
            raise InvalidParameter("a context that comes with another request needs a build with an id")
        return self._uploads.setdefault(id, _Upload())

    def _forget(self, id: str, upload: _Upload) -> None:
        if self._uploads.get(id) is upload:
            del self._uploads[id]


class _Upload:
    """A context on its way from one request to another."""

    def __init__(self) -> None:
        self.body: Body | None = None
        self.here = asyncio.Event()
        self.asked = asyncio.Event()
        self.read = asyncio.Event()
