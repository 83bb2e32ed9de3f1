"""Take back what outlived the daemon, tidy up after what did not, start what is to be started.

Containers do not need the daemon to run. One that was killed comes back to tasks that still run, tasks that
ended with nobody looking, and starts and removals that were cut off; each is brought to a state that is
true, and nothing is left over from those that are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Collection, Mapping
from functools import partial

from longshore.containers.container import Container
from longshore.engine.adoption import sandbox_of
from longshore.engine.cleanup import mount_rootfs, release_resources
from longshore.engine.engine import Engine
from longshore.engine.exit import handle_exit
from longshore.engine.health import init_health_monitor
from longshore.engine.image_mounts import OWNED_NAME, layers_in_use
from longshore.engine.links import link_firewall
from longshore.engine.logging_driver import keep_output, open_log
from longshore.engine.mounts import reference_volumes, release_mounts, remount
from longshore.engine.networking import clear_operational_data, joined_container, network_mode
from longshore.engine.remove import container_remove
from longshore.engine.start import start_container
from longshore.errors import Conflict, EngineError, NotFound
from longshore.runtime.task import Stdio, TaskInfo
from longshore.types.timestamp import parse_rfc3339, rfc3339_nano

EXIT_UNKNOWN = 255
"""Exit code of a container whose end nobody saw, e.g. through a power cut; Docker's."""

PARALLEL_STARTS = 4

log = logging.getLogger(__name__)


async def restore(engine: Engine) -> None:
    """Bring memory, disk and kernel into agreement. Called once, before the API is served."""
    damaged = await engine.containers.load()
    for id, problem in damaged.items():
        log.error("container %s could not be loaded: %s", id, problem)
    # Held until all is restored: an exit that is told of meanwhile must find what the list of tasks led to,
    # and no removal may take away what is being tidied up here.
    held = list(engine.containers)
    for container in held:
        await container.lock.acquire()
    try:
        await _restore_parts(engine, damaged.keys())
    finally:
        for container in held:
            container.lock.release()
    await _finish_removals(engine)
    if (engine.data_root / "builder" / "builds").is_dir():
        from longshore.engine.builder.workspace import remove_interrupted_builds

        await remove_interrupted_builds(engine)


async def _restore_parts(engine: Engine, damaged: Collection[str]) -> None:
    tasks = {task.id: task for task in await engine.runtime.tasks()}
    alive = {id for id, task in tasks.items() if task.status in ("running", "paused")}
    await engine.networks.start(_active_sandboxes(engine, alive, damaged), partial(sandbox_of, engine))
    for container in engine.containers:
        reference_volumes(engine, container)
    await asyncio.gather(*(_restore_one(engine, container, tasks) for container in engine.containers))
    for container in engine.containers:
        if container.state.Running and container.host_config.Links:
            await link_firewall(engine, container)
    await _delete_strangers(engine, tasks, damaged)
    active = layers_in_use(container for container in engine.containers if container.state.Running)
    await asyncio.to_thread(engine.layers.cleanup_stale, active | set(damaged))
    try:
        await asyncio.to_thread(_release_orphaned_layers, engine, damaged)
        await asyncio.to_thread(engine.layers.release_loose)
        await asyncio.to_thread(engine.layers.cleanup_orphans)
    except OSError as exc:
        log.error("leftover layers could not be removed: %s", exc)


async def start_by_policy(engine: Engine) -> None:
    """Start the containers whose restart policy asks for it, those they share a network with first."""
    waiting = [container for container in engine.containers if _starts_by_itself(container)]
    turns = asyncio.Semaphore(PARALLEL_STARTS)

    async def start(container: Container) -> None:
        async with turns, container.lock:
            if engine.shutting_down or container.state.Running or container.state.Dead or container.removed:
                return
            try:
                await start_container(engine, container)
            except EngineError as exc:
                log.error("failed to start container %s: %s", container.id[:12], exc)

    for joined in (False, True):
        await asyncio.gather(*(start(each) for each in waiting if bool(joined_container(each)) is joined))


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


def _active_sandboxes(engine: Engine, alive: set[str], damaged: Collection[str]) -> dict[str, str]:
    """The namespaces that running containers live in, by container id."""
    active = {id: "" for id in alive if id in damaged}
    for container in engine.containers:
        if container.id in alive and not joined_container(container):
            active[container.id] = container.networks.SandboxKey
            del_host = network_mode(container) == "host"
            if del_host and not active[container.id]:
                active[container.id] = "host"
    return active


async def _restore_one(engine: Engine, container: Container, tasks: Mapping[str, TaskInfo]) -> None:
    """Bring one container to a state that is true. Its lock is held."""
    task = tasks.get(container.id)
    try:
        if task is not None and task.status in ("running", "paused"):
            await _take_back(engine, container, task)
        elif container.state.Restarting:
            await _end_restarting(engine, container)
        elif container.state.Running or _unheard_of(container, task):
            await _bury(engine, container, task)
        else:
            await _release_left_over(engine, container, task)
    except Exception:
        log.exception("container %s could not be restored", container.id[:12])


def _unheard_of(container: Container, task: TaskInfo | None) -> bool:
    """Whether a task ran, or for all anybody knows may have run, and ended without any record of it."""
    if task is None:
        return container.state.Starting
    return task.status == "stopped" and task.exited_at > parse_rfc3339(container.state.FinishedAt)


async def _take_back(engine: Engine, container: Container, task: TaskInfo) -> None:
    """The task runs: read its output again, hold its mounts again."""
    state = container.state
    if not state.Running or state.Pid != task.pid:
        # The daemon died between the task's start and the record of it.
        container.set_running(task.pid)
    state.Restarting = False
    state.Paused = task.status == "paused"
    try:
        await mount_rootfs(engine, container)
        await remount(engine, container)
    except (OSError, EngineError) as exc:
        log.error("container %s runs on with a damaged file system: %s", container.id[:12], exc)
    streams = engine.streams_of(container)
    streams.on_stdin_closed = lambda: engine.runtime.close_stdin(container.id)
    driver = await open_log(engine, container, running=True)
    keep = keep_output(engine, container, resume=True)

    def attach(stdio: Stdio) -> None:
        streams.start(stdio.stdin, stdio.stdout, stdio.stderr, driver, keep)

    await engine.runtime.reattach(
        container.id, stdin=container.config.OpenStdin, terminal=container.config.Tty, attach=attach
    )
    init_health_monitor(engine, container)
    await engine.containers.save(container)
    log.info("container %s runs on as process %d", container.id[:12], task.pid)


async def _bury(engine: Engine, container: Container, task: TaskInfo | None) -> None:
    """The task ended while nobody looked: read what output is left, then treat it as any exit."""
    code, exited_at = EXIT_UNKNOWN, 0
    if task is not None and task.status == "stopped":
        code, exited_at = task.exit_code, task.exited_at
    elif container.state.Running and not container.state.Pid:
        # The last daemon died while it dealt with the exit.
        code, exited_at = container.state.ExitCode, parse_rfc3339(container.state.FinishedAt)
    if not container.state.Running:
        began = rfc3339_nano(exited_at) if exited_at else None  # which nobody knows
        container.set_running(task.pid if task is not None else 0, began)
    with contextlib.suppress(OSError, EngineError):
        await _read_the_rest(engine, container, stopped=task is not None and task.status == "stopped")
    await handle_exit(engine, container, code, exited_at, come_to_rest=True)


async def _read_the_rest(engine: Engine, container: Container, *, stopped: bool) -> None:
    """What the last daemon had read and not logged; of a task that is there, what is left in its pipes."""
    keep = keep_output(engine, container, resume=True)
    if not stopped and not keep.directory.exists():
        return
    streams = engine.streams_of(container)
    driver = await open_log(engine, container, running=True)
    stdio = Stdio(None, None, None)

    def attach(reopened: Stdio) -> None:
        nonlocal stdio
        stdio = reopened

    with contextlib.suppress(OSError, EngineError):
        if stopped:
            await engine.runtime.reattach(
                container.id, stdin=False, terminal=container.config.Tty, attach=attach
            )
    streams.start(stdio.stdin, stdio.stdout, stdio.stderr, driver, keep)


async def _end_restarting(engine: Engine, container: Container) -> None:
    """The container was between two runs: `start_by_policy` decides about the next one."""
    await release_resources(engine, container)
    container.set_stopped(container.state.ExitCode, container.state.FinishedAt)
    await engine.containers.save(container)


async def _release_left_over(engine: Engine, container: Container, task: TaskInfo | None) -> None:
    """The container does not run: nothing may be left of a start or an exit that was cut off."""
    if task is not None:
        await engine.runtime.delete(container.id)
    container.state.Starting = False
    await release_mounts(engine, container)
    clear_operational_data(container)


async def _delete_strangers(engine: Engine, tasks: Mapping[str, TaskInfo], damaged: Collection[str]) -> None:
    """Tasks of containers that no longer exist: what a removal that was cut off left behind."""
    for id in tasks:
        # One whose record is damaged goes on: it may be mended, and taken back by the next daemon.
        if engine.containers.find(id) is None and id not in damaged:
            log.warning("task %s belongs to no container; deleting it", id[:12])
            with contextlib.suppress(EngineError):
                await engine.runtime.kill(id, signal.SIGKILL, all=True)
            engine.spawn(_delete_task(engine, id), f"deletion of task {id[:12]}")


async def _delete_task(engine: Engine, id: str) -> None:
    for _ in range(50):
        try:
            await engine.runtime.delete(id)
            return
        except Conflict:  # It has not died yet.
            await asyncio.sleep(0.1)


def _release_orphaned_layers(engine: Engine, damaged: Collection[str]) -> None:
    """Writable layers of containers that a create had no time to record."""
    for layer in engine.layers.rw_layers():
        # Other names are not a container's: BuildKit, in dockerd, keeps its own here.
        owner = OWNED_NAME.fullmatch(layer.name)
        if owner is None or owner[1] in damaged:
            continue
        if engine.containers.find(owner[1]) is None:
            try:
                engine.layers.release_rw_layer(layer)
            except (OSError, EngineError) as exc:
                log.error("layer of container %s could not be removed: %s", layer.name[:12], exc)


async def _finish_removals(engine: Engine) -> None:
    """Finish removals that were cut off, and remove what has ended and was to remove itself."""
    for container in engine.containers:
        state = container.state
        if not state.Dead and (state.Running or not container.host_config.AutoRemove):
            continue
        try:
            await container_remove(engine, container.id, force=True, volumes=container.host_config.AutoRemove)
        except (Conflict, NotFound):
            continue  # It runs on and has ended by itself just now.
        except EngineError as exc:
            log.error("container %s could not be removed: %s", container.id[:12], exc)
