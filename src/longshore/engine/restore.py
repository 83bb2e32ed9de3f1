"""Take back what outlived the daemon, tidy up after what did not, start what is to be started.

Containers do not need the daemon to run. One that was killed comes back to tasks that still run, tasks that
ended with nobody looking, and starts and removals that were cut off; each is brought to a state that is
true, and nothing is left over from those that are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from longshore.containers.container import Container
from longshore.engine.cleanup import mount_rootfs
from longshore.engine.engine import Engine
from longshore.engine.exit import handle_exit
from longshore.engine.logging_driver import open_log
from longshore.engine.mounts import reference_volumes, remount
from longshore.engine.networking import joined_container, network_mode
from longshore.engine.remove import container_remove
from longshore.engine.start import start_container
from longshore.errors import EngineError, NotFound
from longshore.runtime.task import Stdio, TaskInfo

EXIT_UNKNOWN = 255
"""Exit code of a container whose end nobody saw, e.g. through a power cut; Docker's."""

log = logging.getLogger(__name__)


async def restore(engine: Engine) -> None:
    """Bring memory, disk and kernel into agreement. Called once, before the API is served."""
    for problem in await engine.containers.load():
        log.error("a container could not be loaded: %s", problem)
    tasks = {task.id: task for task in await engine.runtime.tasks()}
    alive = {id for id, task in tasks.items() if task.status in ("running", "paused")}
    await engine.networks.start(_active_sandboxes(engine, alive))
    for container in engine.containers:
        reference_volumes(engine, container)
    await asyncio.gather(*(_restore_one(engine, container, tasks) for container in engine.containers))
    await _delete_strangers(engine, tasks)
    active = {container.id for container in engine.containers if container.state.Running}
    await asyncio.to_thread(engine.layers.cleanup_stale, active)
    await asyncio.to_thread(engine.layers.cleanup_orphans)
    await _finish_removals(engine)
    for container in engine.containers:
        container.restart_delay = 0.0


async def start_by_policy(engine: Engine) -> None:
    """Start the containers whose restart policy asks for it, those they share a network with first."""
    waiting = [container for container in engine.containers if _starts_by_itself(container)]
    waiting.sort(key=lambda container: bool(joined_container(container)))
    for container in waiting:
        async with container.lock:
            if container.state.Running or container.removed:
                continue
            try:
                await start_container(engine, container, reset_restart_manager=False)
            except EngineError as exc:
                log.error("failed to start container %s: %s", container.id[:12], exc)


def _starts_by_itself(container: Container) -> bool:
    if container.state.Running or container.state.Dead:
        return False
    policy, record = container.host_config.RestartPolicy, container.record
    match policy.Name:
        case "always":
            return record.HasBeenStartedBefore
        case "unless-stopped":
            return record.HasBeenStartedBefore and not record.HasBeenManuallyStopped
        case "on-failure":
            if record.HasBeenManuallyStopped or not record.HasBeenStartedBefore:
                return False
            limit = policy.MaximumRetryCount
            return container.state.ExitCode != 0 and (limit == 0 or record.RestartCount < limit)
    return False


def _active_sandboxes(engine: Engine, alive: set[str]) -> dict[str, str]:
    """The namespaces that running containers live in, by container id."""
    active = {}
    for container in engine.containers:
        if container.id in alive and not joined_container(container):
            active[container.id] = container.networks.SandboxKey
            del_host = network_mode(container) == "host"
            if del_host and not active[container.id]:
                active[container.id] = "host"
    return active


async def _restore_one(engine: Engine, container: Container, tasks: Mapping[str, TaskInfo]) -> None:
    async with container.lock:
        task = tasks.get(container.id)
        try:
            if task is not None and task.status in ("running", "paused"):
                await _take_back(engine, container, task)
            elif container.state.Running or task is not None:
                await _bury(engine, container, task)
        except (OSError, EngineError) as exc:
            log.error("container %s could not be restored: %s", container.id[:12], exc, exc_info=exc)


async def _take_back(engine: Engine, container: Container, task: TaskInfo) -> None:
    """The task runs: read its output again, hold its mounts again."""
    state = container.state
    if not state.Running or state.Pid != task.pid:
        # The daemon died between the task's start and the record of it.
        container.set_running(task.pid)
    state.Restarting = False
    state.Paused = task.status == "paused"
    await mount_rootfs(engine, container)
    await remount(engine, container)
    streams = engine.streams_of(container)
    streams.on_stdin_closed = lambda: engine.runtime.close_stdin(container.id)
    driver = open_log(engine, container)

    def attach(stdio: Stdio) -> None:
        streams.start(stdio.stdin, stdio.stdout, stdio.stderr, driver)

    await engine.runtime.reattach(
        container.id, stdin=container.config.OpenStdin, terminal=container.config.Tty, attach=attach
    )
    await engine.containers.save(container)
    log.info("container %s runs on as process %d", container.id[:12], task.pid)


async def _bury(engine: Engine, container: Container, task: TaskInfo | None) -> None:
    """The task ended while nobody looked: read what output is left, then treat it as any exit."""
    code, exited_at = (task.exit_code, task.exited_at) if task is not None else (EXIT_UNKNOWN, 0)
    if task is not None:
        streams = engine.streams_of(container)
        driver = open_log(engine, container)

        def attach(stdio: Stdio) -> None:
            streams.start(stdio.stdin, stdio.stdout, stdio.stderr, driver)

        with contextlib.suppress(OSError, EngineError):
            await engine.runtime.reattach(
                container.id, stdin=False, terminal=container.config.Tty, attach=attach
            )
    if not container.state.Running:
        # A start that was cut off between create and start: it never ran.
        await engine.runtime.delete(container.id)
        return
    container.state.Running = True
    await handle_exit(engine, container, code, exited_at)


async def _delete_strangers(engine: Engine, tasks: Mapping[str, TaskInfo]) -> None:
    """Tasks of containers that no longer exist: what a removal that was cut off left behind."""
    for id in tasks:
        if engine.containers.find(id) is None:
            log.warning("task %s belongs to no container; deleting it", id[:12])
            with contextlib.suppress(EngineError):
                await engine.runtime.kill(id, 9)
            with contextlib.suppress(EngineError):
                await engine.runtime.delete(id)


async def _finish_removals(engine: Engine) -> None:
    for container in engine.containers:
        state = container.state
        unfinished = state.RemovalInProgress or state.Dead
        state.RemovalInProgress = False
        if not unfinished and not (container.host_config.AutoRemove and _ended(container)):
            continue
        try:
            await container_remove(engine, container.id, force=True, volumes=container.host_config.AutoRemove)
        except NotFound:
            continue
        except EngineError as exc:
            log.error("container %s could not be removed: %s", container.id[:12], exc)


def _ended(container: Container) -> bool:
    return not container.state.Running and container.record.HasBeenStartedBefore
