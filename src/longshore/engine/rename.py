"""Give a container another name."""

from __future__ import annotations

from longshore.engine.engine import Engine
from longshore.engine.networking import rename_endpoints
from longshore.errors import Conflict, EngineError, InvalidParameter


async def container_rename(engine: Engine, name: str, new_name: str) -> None:
    """POST /containers/{id}/rename.

    Raises NotFound, InvalidParameter for an empty, bad or unchanged name, Conflict for one in use.
    """
    if not name or not new_name:
        raise InvalidParameter("Neither old nor new names may be empty")
    container = engine.containers.get(name)
    async with container.lock:
        old, new = container.name, new_name.removeprefix("/")
        if old == new:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        if container.state.RemovalInProgress or container.state.Dead:
            raise Conflict(f"container {container.id} is marked for removal and cannot be renamed")
        try:
            engine.containers.reserve_name(f"/{new}", container.id)
        except EngineError as exc:
            raise type(exc)(f"Error when allocating new name: {exc}") from exc
        container.record.Name = f"/{new}"
        try:
            await engine.containers.save(container)
        except OSError:
            container.record.Name = f"/{old}"
            engine.containers.release_name(new, container.id)
            raise
        engine.containers.release_name(old, container.id)
        await rename_endpoints(engine, container, old)
    engine.log_container_event(container, "rename", oldName=f"/{old}")
