"""Tell what a container changed in its file system."""

from __future__ import annotations

import asyncio

from longshore.engine.engine import Engine
from longshore.types.stats import FilesystemChange


async def container_changes(engine: Engine, name: str) -> list[FilesystemChange] | None:
    """GET /containers/{id}/changes, in order of path; None if nothing changed. Raises NotFound."""
    container = engine.containers.get(name)
    layer = engine.layers.get_rw_layer(container.id)
    changes = await asyncio.to_thread(layer.changes)
    return [FilesystemChange(change.path, change.kind) for change in changes] or None
