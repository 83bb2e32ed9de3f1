"""StateChanged: what follows when a container's process has ended.

The runtime tells of an exit once. Under the container's lock its output is read to the end, its network,
mounts and task are given back, and then the restart policy decides what becomes of it.
"""

from __future__ import annotations

import asyncio
import logging
import time

from longshore.containers.container import Container
from longshore.engine.cleanup import release_resources
from longshore.engine.engine import Engine
from longshore.engine.exec import end_execs, on_exec_exit
from longshore.engine.health import stop_health_monitor
from longshore.engine.restart_policy import arm_restart, should_restart
from longshore.errors import Conflict, EngineError, NotFound
from longshore.runtime.task import TaskEvent
from longshore.types.timestamp import now, parse_rfc3339, rfc3339_nano

OUTPUT_GRACE = 2.0
"""Seconds to wait for the end of the output: a process left behind may hold the pipe open for ever."""

log = logging.getLogger(__name__)


def on_task_event(engine: Engine, event: TaskEvent) -> None:
    """Called by the runtime for everything that happens to a task."""
    container = engine.containers.find(event.id)
    if container is None:
        return
    if event.kind == "exit" and not event.exec_id:
        engine.spawn(_exited(engine, container, event), f"exit of {container.id[:12]}")
    elif event.kind == "exit":
        on_exec_exit(engine, event)
    elif event.kind == "oom":
        container.state.OOMKilled = True
        engine.log_container_event(container, "oom")


async def _exited(engine: Engine, container: Container, event: TaskEvent) -> None:
    async with container.lock:
        if not container.state.Running or event.pid != container.state.Pid:
            return  # Told of a task that a failed start has undone already, or that was dealt with.
        await handle_exit(engine, container, event.exit_code, event.exited_at)


async def handle_exit(
    engine: Engine, container: Container, exit_code: int, exited_at: int, *, come_to_rest: bool = False
) -> None:
    """Bring a container whose process has ended to rest. The caller holds its lock.

    `exited_at` is in nanoseconds since the epoch, 0 if it is not known. With `come_to_rest` the
    container neither starts again nor removes itself, whatever its settings say: the caller decides.
    """
    run_time = max(0, (exited_at or time.time_ns()) - parse_rfc3339(container.state.StartedAt))
    finished_at = rfc3339_nano(exited_at) if exited_at else now()
    stop_health_monitor(engine, container)
    end_execs(engine, container)
    # Kept before the runtime forgets it: a daemon that dies from here on leaves the code to the next, which
    # tells by the missing pid that it is the last word.
    container.state.ExitCode, container.state.FinishedAt, container.state.Pid = exit_code, finished_at, 0
    await asyncio.gather(_save(engine, container), _drain(engine, container))
    await release_resources(engine, container)

    restart = not come_to_rest and should_restart(container, exit_code, shutting_down=engine.shutting_down)
    engine.log_container_event(
        container, "die", exitCode=str(exit_code), execDuration=str(run_time // 1_000_000_000)
    )
    if restart:
        container.record.RestartCount += 1
        container.set_restarting(exit_code, finished_at)
        arm_restart(engine, container, run_time)
    else:
        if container.host_config.AutoRemove and not container.keep_after_exit and not come_to_rest:
            engine.spawn(auto_remove(engine, container), f"removal of {container.id[:12]}")
        container.set_stopped(exit_code, finished_at)
    await _save(engine, container)


async def _drain(engine: Engine, container: Container) -> None:
    streams = engine.streams.get(container.id)
    if streams is not None and not await streams.drained(OUTPUT_GRACE):
        streams.stop()


async def _save(engine: Engine, container: Container) -> None:
    try:
        await engine.containers.save(container)
    except OSError as exc:  # A full disk: the container must come to rest all the same.
        log.error("container %s could not be saved: %s", container.id[:12], exc)


async def auto_remove(engine: Engine, container: Container) -> None:
    """Do what `--rm` asked for."""
    from longshore.engine.remove import container_remove

    try:
        await container_remove(engine, container.id, force=True, volumes=True)
    except (Conflict, NotFound):
        pass  # Somebody else is removing it, or has.
    except EngineError as exc:
        log.error("can't remove container %s: %s", container.id, exc)


async def wait_for_exits(engine: Engine, timeout: float) -> None:
    """Wait, at most `timeout` seconds, until every exit that was told of has been dealt with."""
    exits = [task for task in engine.background if task.get_name().startswith("exit of ")]
    if exits:
        await asyncio.wait(exits, timeout=timeout)
