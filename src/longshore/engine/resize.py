"""Tell a container's terminal its size."""

from __future__ import annotations

from longshore.engine.engine import Engine
from longshore.errors import Conflict


async def container_resize(engine: Engine, name: str, height: int, width: int) -> None:
    """POST /containers/{id}/resize, in characters. Raises NotFound, Conflict if it does not run."""
    container = engine.containers.get(name)
    if not container.state.Running or container.state.Restarting:
        raise Conflict(f"container {container.id} is not running")
    await engine.runtime.resize(container.id, width, height)
    engine.log_container_event(container, "resize", height=str(height), width=str(width))
