"""What is left to do for sandboxes and endpoints that have gone, behind the requests that let them go."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable


class Departures:
    """Tasks, each by the ids of the container and the networks that it has to do with."""

    def __init__(self) -> None:
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}

    def begin(self, container_id: str, networks: Iterable[str], work: Coroutine[None, None, None]) -> None:
        """Let `work` go on by itself."""
        task = asyncio.create_task(work, name=f"departure of {container_id[:12]}")
        ids = {container_id, *networks}
        for id in ids:
            self._tasks.setdefault(id, set()).add(task)

        def done(task: asyncio.Task[None]) -> None:
            for id in ids:
                self._tasks[id].discard(task)
                if not self._tasks[id]:
                    del self._tasks[id]

        task.add_done_callback(done)

    async def settled(self, id: str = "") -> bool:
        """Wait until nothing is left of what has gone so far, of a container, of a network, or at all.

        Returns whether there was something to wait for.
        """
        tasks = set(self._tasks.get(id, ())) if id else set().union(*self._tasks.values())
        if tasks:
            await asyncio.wait(tasks)
        return bool(tasks)
