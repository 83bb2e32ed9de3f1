"""End the daemon in good order."""

from __future__ import annotations

import asyncio
import logging

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.exit import wait_for_exits
from longshore.engine.health import stop_health_monitors
from longshore.engine.restart_policy import cancel_restart
from longshore.engine.stop import stop_container, stop_timeout
from longshore.errors import EngineError

EXITS_GRACE = 15.0
BACKGROUND_GRACE = 5.0

log = logging.getLogger(__name__)


async def shutdown(engine: Engine) -> None:
    """Stop every container, each within its own time, all within the shutdown timeout; then the parts.

    With `live-restore` running containers are left alone. What does not stop in time is left to run, and
    is taken back by the next daemon.
    """
    engine.shutting_down = True
    stop_health_monitors(engine)
    if not engine.config.live_restore:
        await _stop_containers(engine)
    for container in engine.containers:
        cancel_restart(container)  # It stays restarting: the next daemon goes on with it.
    await wait_for_exits(engine, EXITS_GRACE)
    if engine.background:
        await asyncio.wait(set(engine.background), timeout=BACKGROUND_GRACE)
    still_running = any(container.state.Running and container.state.Pid for container in engine.containers)
    for container in engine.containers:
        try:
            await engine.containers.save(container)
        except OSError as exc:
            log.error("container %s could not be saved: %s", container.id[:12], exc)
    await engine.networks.stop(keep_active=still_running)
    await asyncio.to_thread(engine.volumes.close)
    await engine.runtime.close(stop_child=True)
    await asyncio.to_thread(engine.pump.close)


async def _stop_containers(engine: Engine) -> None:
    # Also those that do not run: they may be starting, and hold their lock until they do.
    concerned = [one for one in engine.containers if one.state.Running or one.lock.locked()]
    timeout = engine.config.shutdown_timeout
    for container in concerned:
        wanted = stop_timeout(container)
        if wanted < 0 or timeout < 0:
            timeout = -1
            break
        timeout = max(timeout, wanted + 5)
    stopping = asyncio.gather(*(_stop_one(engine, container) for container in concerned))
    try:
        await asyncio.wait_for(stopping, None if timeout < 0 else timeout)
    except TimeoutError:
        log.error("containers did not stop within %d s and are left running", timeout)


async def _stop_one(engine: Engine, container: Container) -> None:
    try:
        async with container.lock:
            running = container.state.Running
        if running:
            await stop_container(engine, container)
    except EngineError as exc:
        log.error("container %s could not be stopped: %s", container.id[:12], exc)
