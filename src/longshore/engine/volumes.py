"""Volumes, as the API has them: create, list, inspect, remove, prune."""

from __future__ import annotations

import asyncio

from longshore.engine.engine import Engine
from longshore.types.filters import Filters
from longshore.types.volume import (
    Volume,
    VolumeCreateRequest,
    VolumeListResponse,
    VolumesPruneResponse,
)


async def volume_create(engine: Engine, request: VolumeCreateRequest) -> Volume:
    """POST /volumes/create. Raises InvalidParameter, Conflict, NotFound for an unknown driver."""
    wanted = (request.Name, request.Driver, request.DriverOpts, request.Labels)
    return await asyncio.to_thread(engine.volumes.create, *wanted)


async def volume_list(engine: Engine, filters: Filters) -> VolumeListResponse:
    """GET /volumes. Raises InvalidParameter for a filter that does not exist."""
    found, warnings = await asyncio.to_thread(engine.volumes.survey, filters)
    return VolumeListResponse(list(found), list(warnings) or None)


async def volume_inspect(engine: Engine, name: str) -> Volume:
    """GET /volumes/{name}. Raises NotFound."""
    return await asyncio.to_thread(engine.volumes.get, name)


async def volume_remove(engine: Engine, name: str, force: bool = False) -> None:
    """DELETE /volumes/{name}. Raises NotFound (without force), Conflict for one in use."""
    await asyncio.to_thread(engine.volumes.remove, name, force=force)


async def volumes_prune(engine: Engine, filters: Filters) -> VolumesPruneResponse:
    """POST /volumes/prune. Raises InvalidParameter for a filter that does not exist."""
    names, freed = await asyncio.to_thread(engine.volumes.prune, filters)
    engine.events.publish("volume", "prune", "", {"reclaimed": str(freed)})
    return VolumesPruneResponse(list(names), freed)
