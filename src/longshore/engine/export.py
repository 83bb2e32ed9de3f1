"""Write a container's file system as an archive."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable

from longshore.engine.bridges import chunks_of
from longshore.engine.engine import Engine
from longshore.errors import Conflict
from longshore.layers.difftar import tree_tar


async def container_export(engine: Engine, name: str) -> AsyncIterator[bytes]:
    """GET /containers/{id}/export: everything but volumes. Raises NotFound, Conflict."""
    container = engine.containers.get(name)
    if container.state.Dead:
        raise Conflict(f"You cannot export container {container.id} which is Dead")
    if container.state.RemovalInProgress:
        raise Conflict(f"You cannot export container {container.id} which is being removed")
    layer = engine.layers.get_rw_layer(container.id)

    def work(write: Callable[[bytes], None]) -> None:
        rootfs = os.open(layer.mount(container.record.MountLabel), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for chunk in tree_tar(rootfs, ".", engine.layers.ids, lambda path: path[2:]):
                write(chunk)
        finally:
            os.close(rootfs)
            layer.unmount()

    engine.log_container_event(container, "export")
    return chunks_of(work)
