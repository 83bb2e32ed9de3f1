"""Freeze a container's processes, and let them go on."""

from __future__ import annotations

from longshore.engine.engine import Engine
from longshore.engine.health import update_health_monitor
from longshore.errors import Conflict


async def container_pause(engine: Engine, name: str) -> None:
    """POST /containers/{id}/pause. Raises NotFound, Conflict if it does not run or is paused already."""
    container = engine.containers.get(name)
    async with container.lock:
        if not container.state.Running:
            raise Conflict(f"container {container.id} is not running")
        if container.state.Paused:
            raise Conflict(f"container {container.id} is already paused")
        if container.state.Restarting:
            raise Conflict(f"container {container.id} is restarting, wait until the container is running")
        await engine.runtime.pause(container.id)
        container.state.Paused = True
        update_health_monitor(engine, container)
        await engine.containers.save(container)
    engine.log_container_event(container, "pause")


async def container_unpause(engine: Engine, name: str) -> None:
    """POST /containers/{id}/unpause. Raises NotFound, Conflict if it is not paused."""
    container = engine.containers.get(name)
    async with container.lock:
        if not container.state.Paused:
            raise Conflict(f"container {container.id} is not paused")
        await engine.runtime.resume(container.id)
        container.state.Paused = False
        update_health_monitor(engine, container)
        await engine.containers.save(container)
    engine.log_container_event(container, "unpause")
