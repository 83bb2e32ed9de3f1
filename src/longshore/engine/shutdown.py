"""End the daemon in good order."""

from __future__ import annotations

import asyncio
import logging

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.exit import wait_for_exits
from longshore.engine.health import stop_health_monitors
from longshore.engine.stop import stop_container, stop_timeout
from longshore.errors import EngineError

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
    await wait_for_exits(engine)
    if engine.background:
        await asyncio.wait(set(engine.background), timeout=5)
    still_running = any(container.state.Running for container in engine.containers)
    for container in engine.containers:
        try:
            await engine.containers.save(container)
        except OSError as exc:
            log.error("container %s could not be saved: %s", container.id[:12], exc)
    await engine.networks.stop(keep_active=still_running)
    await engine.runtime.close(stop_child=not still_running)
    await asyncio.to_thread(engine.pump.close)


async def _stop_containers(engine: Engine) -> None:
    running = [container for container in engine.containers if container.state.Running]
    if not running:
        return
    timeout = engine.config.shutdown_timeout
    for container in running:
        wanted = stop_timeout(container)
        if wanted < 0:
            timeout = -1
            break
        timeout = max(timeout, wanted + 5)
    stopping = asyncio.gather(*(_stop_one(engine, container) for container in running))
    try:
        await asyncio.wait_for(stopping, None if timeout < 0 else timeout)
    except TimeoutError:
        log.error("containers did not stop within %d s and are left running", timeout)


async def _stop_one(engine: Engine, container: Container) -> None:
    try:
        await stop_container(engine, container)
    except EngineError as exc:
        log.error("container %s could not be stopped: %s", container.id[:12], exc)
