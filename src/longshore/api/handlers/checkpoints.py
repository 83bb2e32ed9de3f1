"""/containers/…/checkpoints, which dockerd has in experimental mode only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longshore.api import query
from longshore.api.http import Request, Response
from longshore.api.respond import json_response, no_content

if TYPE_CHECKING:
    from longshore.engine.engine import Engine


async def get_checkpoints(engine: Engine, request: Request) -> Response:
    """docker checkpoint ls"""
    from longshore.engine.checkpoints import checkpoint_list

    return json_response(await checkpoint_list(engine, request.vars["name"], query.string(request, "dir")))


async def post_checkpoint(engine: Engine, request: Request) -> Response:
    """docker checkpoint create"""
    from longshore.engine.checkpoints import checkpoint_create
    from longshore.types.checkpoint import CheckpointCreateRequest

    wanted = await query.json_body(request, CheckpointCreateRequest)
    await checkpoint_create(engine, request.vars["name"], wanted)
    return Response(201)


async def delete_checkpoint(engine: Engine, request: Request) -> Response:
    """docker checkpoint rm"""
    from longshore.engine.checkpoints import checkpoint_delete

    await checkpoint_delete(
        engine, request.vars["name"], request.vars["checkpoint"], query.string(request, "dir")
    )
    return no_content()
