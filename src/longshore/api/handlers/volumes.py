"""/volumes"""

from __future__ import annotations

from typing import TYPE_CHECKING

from longshore.api import query
from longshore.api.handlers.swarm import not_a_manager
from longshore.api.http import Request, Response
from longshore.api.respond import json_response, no_content
from longshore.errors import Unavailable

if TYPE_CHECKING:
    from longshore.engine.engine import Engine


async def get_volumes_list(engine: Engine, request: Request) -> Response:
    """docker volume ls"""
    from longshore.engine.volumes import volume_list

    return json_response(await volume_list(engine, query.filters(request)))


async def get_volume_by_name(engine: Engine, request: Request) -> Response:
    """docker volume inspect"""
    from longshore.engine.volumes import volume_inspect

    return json_response(await volume_inspect(engine, request.vars["name"]))


async def post_volumes_create(engine: Engine, request: Request) -> Response:
    """docker volume create"""
    from longshore.engine.volumes import volume_create
    from longshore.types.volume import VolumeCreateRequest

    wanted = await query.json_body(request, VolumeCreateRequest)
    if wanted.ClusterVolumeSpec is not None and request.version >= (1, 42):
        await not_a_manager(engine, request)
    return json_response(await volume_create(engine, wanted), 201)


async def post_volumes_prune(engine: Engine, request: Request) -> Response:
    """docker volume prune; before API 1.42 it took volumes that have a name as well"""
    from longshore.engine.volumes import volumes_prune

    chosen = query.filters(request)
    if request.version < (1, 42):
        chosen["all"] = ["true"]
    return json_response(await volumes_prune(engine, chosen))


async def put_volumes_update(engine: Engine, request: Request) -> Response:
    """docker volume update"""
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def delete_volumes(engine: Engine, request: Request) -> Response:
    """docker volume rm"""
    from longshore.engine.volumes import volume_remove

    await volume_remove(engine, request.vars["name"], query.boolean(request, "force"))
    return no_content()
