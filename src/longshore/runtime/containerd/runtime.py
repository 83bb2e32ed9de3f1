"""ContainerdRuntime: tasks and execs, created, started, signalled and deleted through containerd."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING

from longshore.errors import Conflict, EngineError, NotFound
from longshore.runtime.containerd import fifos
from longshore.runtime.containerd.client import Client, any_json, any_message, runc_options, to_its_end
from longshore.runtime.containerd.connection import Connection
from longshore.runtime.containerd.containers import create_container, exit_status, remove
from longshore.runtime.containerd.events import catch_up, ended_status, listed, task_info
from longshore.runtime.containerd.orphans import Orphans
from longshore.runtime.containerd.processes import Process, Processes, streams
from longshore.runtime.containerd.proto import containerd_pb2 as pb
from longshore.runtime.containerd.shims import Ended
from longshore.runtime.containerd.subscribers import Subscribers
from longshore.runtime.containerd.supervisor import Supervisor
from longshore.runtime.containerd.sweeper import Sweeper
from longshore.runtime.task import (
    Attach,
    ExitStatus,
    Metrics,
    RuntimeOptions,
    TaskEvent,
    TaskInfo,
    TaskRuntime,
)
from longshore.tracing import span

if TYPE_CHECKING:
    from longshore.runtime.containerd.metrics import MetricsReader

BUNDLE = "com.docker/engine.bundle.path"
"""Label of a container by which dockerd knows where the pipes of its processes are to be."""

REMEMBERED = 1000
"""Ids of deleted containers kept at most."""


class ContainerdRuntime(TaskRuntime):
    """The TaskRuntime over containerd. Belongs to one event loop.

    `state_dir` (below the exec root) holds the socket, the pid file and the pipes, `root_dir` (below the data
    root) containerd's database. With `address` another containerd is used, which is never started nor killed.
    """

    def __init__(
        self,
        state_dir: Path,
        root_dir: Path,
        address: str | None = None,
        namespace: str = "moby",
        log: logging.Logger | None = None,
        oom_score: int = -500,
        debug: bool = False,
    ) -> None:
        self._log = log or logging.getLogger(__name__)
        self._fifo_dir = state_dir / "fifo"
        self._processes = Processes()
        self._subscribers = Subscribers(self._processes, self._log)
        self._supervisor: Supervisor | None = None
        self._sweeper: Sweeper | None = None
        self._metrics: MetricsReader | None = None
        self._gone: set[str] = set()
        """Containers whose last task this engine has seen deleted in good order."""
        self._ended = Ended(state_dir, namespace)
        if address is None:
            self._supervisor = Supervisor(
                state_dir,
                root_dir,
                oom_score=oom_score,
                debug=debug,
                log=self._log,
                before_start=lambda: self._ended.ask(self._processes),
            )
        self._connection = Connection(
            address or str(state_dir / "containerd.sock"),
            namespace,
            self._supervisor,
            self._log,
            on_event=self._subscribers.received,
            resync=self._resync,
        )
        if address is None:
            directories = [state_dir / "daemon", root_dir]
            orphans = Orphans(state_dir / "containerd.sock", namespace, directories)
            self._sweeper = Sweeper(orphans, self._connection, self._processes, self._fifo_dir, self._log)

    async def connect(self) -> None:
        """Connect to containerd, after starting it if it is ours to start. Raises System or Unavailable."""
        try:
            await self._connection.open()
            if self._sweeper is not None:
                await self._sweeper.sweep()
        except BaseException:
            await self.close(stop_child=True)
            raise

    async def close(self, stop_child: bool) -> None:
        """Disconnect; with `stop_child` our own containerd ends too. Containers go on in any case."""
        if self._sweeper is not None:
            self._sweeper.close()
        await self._connection.close()
        if self._supervisor is not None:
            await self._supervisor.close(stop_child)
        for of_container in self._processes.table.values():
            for process in of_container.values():
                if process.fifos is not None:
                    process.fifos.drop_guards()

    async def version(self) -> tuple[str, str]:
        """containerd's version and revision."""
        reply = await (await self._connection.client()).version(pb.Empty())
        return reply.version, reply.revision

    async def create(
        self,
        id: str,
        spec: bytes,
        *,
        stdin: bool,
        terminal: bool,
        runtime: RuntimeOptions,
        attach: Attach,
        checkpoint: Path | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> int:
        """See TaskRuntime.create."""
        self._gone.discard(id)
        self._ended.forget(id)
        async with self._sweeper.lock if self._sweeper is not None else contextlib.nullcontext():
            known = self._processes.get(id)
        if known is not None and known.exit is None:
            raise Conflict(f"Container {id} is already active")
        process = self._processes.add(Process(id, ""))
        try:
            client = await self._connection.client()
            with span("containerd container"):
                bundle = {BUNDLE: str(self._fifo_dir / id)}
                await create_container(client, id, spec, runtime, {**(labels or {}), **bundle})
            try:
                keep = checkpoint is not None
                with streams(process, self._fifo_dir / id, stdin, terminal, attach, keep=keep) as pipes:
                    request = pb.CreateTaskRequest(
                        container_id=id,
                        stdin=pipes.stdin,
                        stdout=pipes.stdout,
                        stderr=pipes.stderr,
                        terminal=terminal,
                        options=runc_options(runtime, checkpoint) if checkpoint else None,
                    )
                    with span("containerd task"):
                        reply = await to_its_end(client.create(request))
            except BaseException as exc:
                process.exit = ExitStatus(128 + SIGKILL, 0)  # its end is nobody's news
                await asyncio.shield(self._undo(id))
                if isinstance(exc, EngineError):
                    raise type(exc)(f"failed to create task for container: {exc.message}") from exc
                raise
        except BaseException:
            self._processes.forget(id)
            raise
        process.pid = reply.pid
        return reply.pid

    async def start(self, id: str) -> int:
        """See TaskRuntime.start."""
        process = self._known(id)
        client = await self._connection.client()
        reply = await to_its_end(client.start(pb.ProcessRequest(container_id=id)))
        process.pid = process.pid or reply.pid
        await self._started(client, process)
        return process.pid

    async def kill(self, id: str, signal: int, *, exec_id: str = "", all: bool = False) -> None:
        """See TaskRuntime.kill."""
        client = await self._connection.client()
        await client.kill(pb.KillRequest(container_id=id, exec_id=exec_id, signal=signal, all=all))

    async def pause(self, id: str) -> None:
        """See TaskRuntime.pause."""
        await (await self._connection.client()).pause(pb.ProcessRequest(container_id=id))

    async def resume(self, id: str) -> None:
        """See TaskRuntime.resume."""
        await (await self._connection.client()).resume(pb.ProcessRequest(container_id=id))

    async def resize(self, id: str, width: int, height: int, exec_id: str = "") -> None:
        """See TaskRuntime.resize."""
        client = await self._connection.client()
        await client.resize(pb.ResizePtyRequest(container_id=id, exec_id=exec_id, width=width, height=height))

    async def close_stdin(self, id: str, exec_id: str = "") -> None:
        """See TaskRuntime.close_stdin. Asked for before the start, it is done right behind it."""
        process = self._processes.get(id, exec_id)
        if process is not None and not process.started:
            process.close_stdin = True
            return
        await self._close_stdin(await self._connection.client(), id, exec_id)

    async def pids(self, id: str) -> list[int]:
        """See TaskRuntime.pids."""
        request = pb.ProcessRequest(container_id=id)
        return [each.pid for each in (await (await self._connection.client()).pids(request)).processes]

    async def metrics(self, id: str) -> Metrics:
        """See TaskRuntime.metrics."""
        if self._metrics is None:
            from longshore.runtime.containerd.metrics import MetricsReader

            self._metrics = MetricsReader(self._connection.client)
        return await self._metrics.read(id)

    async def update(self, id: str, resources: bytes) -> None:
        """See TaskRuntime.update."""
        client = await self._connection.client()
        await client.update(
            pb.UpdateTaskRequest(container_id=id, resources=any_json("LinuxResources", resources))
        )

    async def checkpoint(self, id: str, directory: Path, exit: bool) -> None:
        """See TaskRuntime.checkpoint."""
        client = await self._connection.client()
        options = pb.CheckpointOptions(exit=exit, image_path=str(directory))
        await client.checkpoint(
            pb.CheckpointTaskRequest(
                container_id=id, options=any_message("containerd.runc.v1.CheckpointOptions", options)
            )
        )

    async def exec_create(
        self, id: str, exec_id: str, process: bytes, *, stdin: bool, terminal: bool, attach: Attach
    ) -> None:
        """See TaskRuntime.exec_create."""
        if self._processes.get(id, exec_id) is not None:
            raise Conflict("id already in use")
        client = await self._connection.client()
        added = self._processes.add(Process(id, exec_id))
        try:
            with streams(added, self._fifo_dir / id, stdin, terminal, attach, keep=True) as pipes:
                await client.exec(
                    pb.ExecProcessRequest(
                        container_id=id,
                        exec_id=exec_id,
                        stdin=pipes.stdin,
                        stdout=pipes.stdout,
                        stderr=pipes.stderr,
                        terminal=terminal,
                        spec=any_json("Process", process),
                    )
                )
        except BaseException:
            self._processes.forget(id, exec_id)
            raise

    async def exec_start(self, id: str, exec_id: str) -> int:
        """See TaskRuntime.exec_start."""
        process = self._known(id, exec_id)
        client = await self._connection.client()
        try:
            reply = await to_its_end(client.start(pb.ProcessRequest(container_id=id, exec_id=exec_id)))
        except BaseException:
            with contextlib.suppress(EngineError):
                await asyncio.shield(self.exec_delete(id, exec_id))
            raise
        process.pid = process.pid or reply.pid
        await self._started(client, process)
        return reply.pid

    async def exec_delete(self, id: str, exec_id: str) -> ExitStatus | None:
        """See TaskRuntime.exec_delete."""
        client = await self._connection.client()
        try:
            reply = await client.delete_process(pb.ProcessRequest(container_id=id, exec_id=exec_id))
        except NotFound:
            reply = None
        process = self._processes.forget(id, exec_id)
        pipes = process.fifos if process else None
        (pipes or fifos.paths(self._fifo_dir / id, exec_id, stdin=True, terminal=False)).remove()
        return exit_status(reply)

    async def delete(self, id: str) -> ExitStatus | None:
        """See TaskRuntime.delete."""
        process = self._processes.get(id)
        never_started = process is not None and not process.started and process.exit is None
        status = await remove(await self._connection.client(), id, force=never_started)
        before = self._ended.forget(id)
        if status is not None:
            if len(self._gone) >= REMEMBERED:
                self._gone.clear()  # The price: for some that are deleted again a look for what is left.
            self._gone.add(id)
        elif id not in self._gone:
            await self._remove_orphan(id, thoroughly=True)
        for each in self._processes.table.pop(id, {}).values():
            if each.fifos is not None:
                each.fifos.drop_guards()
                if each.fifos.directory.name == id:  # Another engine's may be anywhere.
                    fifos.remove_directory(each.fifos.directory)
        fifos.remove_directory(self._fifo_dir / id)
        return status or ended_status(before)

    async def tasks(self) -> list[TaskInfo]:
        """See TaskRuntime.tasks."""
        return list(map(task_info, (await listed(await self._connection.client(), self._ended)).values()))

    async def reattach(self, id: str, *, stdin: bool, terminal: bool, attach: Attach) -> None:
        """See TaskRuntime.reattach. Raises NotFound if there is no such task."""
        process = self._known(id)
        client = await self._connection.client()
        task = (await client.get(pb.ProcessRequest(container_id=id))).process
        process.fifos = fifos.paths(self._fifo_dir / id, "init", stdin=stdin, terminal=terminal)
        if task.stdout and task.stdout != process.fifos.stdout:  # Another engine's, which has its own places.
            names = (task.stdin if stdin else "", task.stdout, task.stderr)
            process.fifos = fifos.FIFOs(Path(task.stdout).parent, "init", *names)
        attach(fifos.reopen(process.fifos))

    def subscribe(self, callback: Callable[[TaskEvent], None]) -> Callable[[], None]:
        """See TaskRuntime.subscribe."""
        return self._subscribers.add(callback)

    async def _undo(self, id: str) -> None:
        """Take back a creation that failed, also if that was because containerd went away."""
        try:
            await remove(await self._connection.client(), id, force=True)
        except EngineError as exc:
            self._log.warning("cannot undo the creation of container %s: %s", id, exc.message)
        await self._remove_orphan(id)
        fifos.remove_directory(self._fifo_dir / id)

    async def _started(self, client: Client, process: Process) -> None:
        if process.fifos is not None:
            process.fifos.drop_guards()
        process.started = True
        if process.close_stdin:
            await self._close_stdin(client, process.id, process.exec_id)

    async def _close_stdin(self, client: Client, id: str, exec_id: str) -> None:
        # Whoever has ended needs no end of its input.
        with contextlib.suppress(NotFound):
            await client.close_io(pb.CloseIORequest(container_id=id, exec_id=exec_id, stdin=True))

    def _known(self, id: str, exec_id: str = "") -> Process:
        process = self._processes.get(id, exec_id)
        if process is None:
            raise NotFound(
                f"exec {exec_id} in container {id}: not found" if exec_id else f"task {id}: not found"
            )
        return process

    async def _resync(self, client: Client) -> None:
        for event in await catch_up(client, self._processes, self._ended):
            self._subscribers.exited(event)
        if self._sweeper is not None:
            self._sweeper.sweep_later()

    async def _remove_orphan(self, id: str, *, thoroughly: bool = False) -> None:
        if self._sweeper is not None:
            await self._sweeper.remove(id, thoroughly=thoroughly)
