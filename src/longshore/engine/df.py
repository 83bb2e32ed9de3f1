"""docker system df: what takes space."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from longshore.engine.version import API_VERSION
from longshore.errors import NotFound
from longshore.types.volume import Volume

if TYPE_CHECKING:
    from longshore.engine.engine import Engine

OBJECT_TYPES = frozenset({"container", "image", "volume", "build-cache"})
"""What may be asked for."""


async def system_disk_usage(
    engine: Engine, wanted: Collection[str] = OBJECT_TYPES, version: tuple[int, ...] = API_VERSION
) -> dict[str, Any]:
    """GET /system/df: sizes in bytes of the objects of the `wanted` types; null for types not asked for."""
    from longshore.engine.images import image_list
    from longshore.engine.listing import container_list

    async def containers() -> Any:
        return await container_list(engine, all=True, size=True) if "container" in wanted else None

    async def images() -> Any:
        if "image" not in wanted:
            return None
        return await image_list(engine, shared_size=True, version=version, count_containers=True)

    async def volumes() -> Any:
        return await asyncio.to_thread(_volumes, engine) if "volume" in wanted else None

    async def caches() -> Any:
        if "build-cache" not in wanted:
            return None
        from longshore.engine.builder.cachemounts import build_cache

        return await asyncio.to_thread(build_cache, engine)

    found_images, found_containers, found_volumes, found_caches = await asyncio.gather(
        images(), containers(), volumes(), caches()
    )
    return {
        "LayersSize": sum(layer.size for layer in engine.layers.layers()) if "image" in wanted else 0,
        "Images": found_images,
        "Containers": found_containers,
        "Volumes": found_volumes,
        "BuildCache": found_caches,
        **({"BuilderSize": sum(each.Size for each in found_caches or ())} if version < (1, 42) else {}),
    }


def _volumes(engine: Engine) -> Sequence[Volume]:
    # As in dockerd, only what takes space here: what has options may lie anywhere.
    found = []
    for volume in engine.volumes.list({"driver": ["local"]}):
        if not volume.Options:
            with suppress(NotFound):  # removed meanwhile
                volume.UsageData = engine.volumes.usage(volume.Name)
                found.append(volume)
    return found
