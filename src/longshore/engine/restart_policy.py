"""Restart policies: whether a container that ended is started again, and after how long.

As in Docker: the delay doubles from 100 ms to at most a minute, and starts over for a container that ran
for ten seconds or more.
"""

from __future__ import annotations

import asyncio
import logging

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.errors import EngineError

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
STABLE_AFTER = 10_000_000_000
"""Nanoseconds after which a run counts as good."""

log = logging.getLogger(__name__)


def should_restart(container: Container, exit_code: int, *, shutting_down: bool) -> bool:
    """Whether the policy asks for another start after this exit."""
    if shutting_down or container.stop_requested:
        return False
    policy = container.host_config.RestartPolicy
    if policy.Name == "always":
        return True
    if policy.Name == "unless-stopped":
        # Any signal that a user sent counts as the wish to stop, as in dockerd.
        return not container.record.HasBeenManuallyStopped
    if policy.Name == "on-failure" and exit_code != 0:
        return policy.MaximumRetryCount == 0 or container.record.RestartCount < policy.MaximumRetryCount
    return False


def arm_restart(engine: Engine, container: Container, run_time: int) -> None:
    """Start the container again after its delay. `run_time` of the last run is in nanoseconds."""
    if container.restart_delay == 0 or run_time >= STABLE_AFTER:
        container.restart_delay = FIRST_DELAY
    else:
        container.restart_delay = min(container.restart_delay * 2, LONGEST_DELAY)
    container.restart_task = engine.spawn(
        _restart(engine, container, container.restart_delay), f"restart of {container.id[:12]}"
    )


async def _restart(engine: Engine, container: Container, delay: float) -> None:
    from longshore.engine.start import start_container

    await asyncio.sleep(delay)
    async with container.lock:
        if container.restart_task is not asyncio.current_task() or not container.state.Restarting:
            return
        container.restart_task = None
        if engine.shutting_down or container.stop_requested:
            container.set_stopped(container.state.ExitCode, container.state.FinishedAt)
            await engine.containers.save(container)
            return
        try:
            await start_container(engine, container, reset_restart_manager=False)
        except EngineError as exc:
            log.error("restart of container %s failed: %s", container.id[:12], exc)


def cancel_restart(container: Container) -> None:
    """Forget a restart that is waiting for its time. The caller holds the lock."""
    task, container.restart_task = container.restart_task, None
    if task is not None and task is not asyncio.current_task():
        task.cancel()
