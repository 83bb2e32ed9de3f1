"""Sweeps up behind containerd: tasks that it has lost sight of, and what is left of tasks that are gone."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from longshore.errors import EngineError
from longshore.runtime.containerd import fifos
from longshore.runtime.containerd.connection import Connection
from longshore.runtime.containerd.containers import remove
from longshore.runtime.containerd.orphans import Orphans
from longshore.runtime.containerd.processes import Processes
from longshore.runtime.containerd.proto import containerd_pb2 as pb

SETTLING = 5.0
"""Seconds within which containerd gives up what a client that is gone had asked for."""


class Sweeper:
    """For a containerd that is the engine's own: nobody else's tasks may be taken for lost."""

    def __init__(
        self,
        orphans: Orphans,
        connection: Connection,
        processes: Processes,
        fifo_dir: Path,
        log: logging.Logger,
    ) -> None:
        self._orphans = orphans
        self._connection = connection
        self._processes = processes
        self._fifo_dir = fifo_dir
        self._log = log
        self._later: set[asyncio.Task[None]] = set()
        self.lock = asyncio.Lock()
        """Held while one task is swept up: whoever makes one of the same id waits."""

    async def sweep(self) -> None:
        """Remove what no task that is known has to do with.

        A creation that was cut off leaves a shim, a deletion that was cut off a container without a task, and
        both our pipes.
        """
        lost = await asyncio.to_thread(self._orphans.find)
        try:
            client = await self._connection.client()
            containers = await client.container_list(pb.ListContainersRequest())
            listed = {
                task.id or task.container_id for task in (await client.list(pb.ListTasksRequest())).tasks
            }
            remains = lost | {each.id for each in containers.containers} | fifos.directories(self._fifo_dir)
            for id in remains - listed:
                async with self.lock:
                    if id in self._processes.table:
                        continue
                    if id in lost:
                        self._log.warning("containerd has lost task %s, removing it", id)
                        await asyncio.to_thread(self._orphans.remove, id)
                    await remove(client, id, force=False)
                    fifos.remove_directory(self._fifo_dir / id)
        except EngineError:
            return  # Gone again: the next connection sweeps again.

    def sweep_later(self) -> None:
        """Sweep again once containerd has settled: what it is busy with now may turn out to be nobody's."""
        task = asyncio.create_task(self._sweep_settled(), name="containerd-orphans")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _sweep_settled(self) -> None:
        await asyncio.sleep(SETTLING)
        await self.sweep()

    async def remove(self, id: str, *, thoroughly: bool = False) -> None:
        """Remove what there is of one task; without `thoroughly`, only if there are signs of it."""
        if thoroughly or self._orphans.remains(id):
            await asyncio.to_thread(self._orphans.remove, id)

    def close(self) -> None:
        """Sweep no more."""
        for task in self._later:
            task.cancel()
