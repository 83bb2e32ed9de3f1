"""What containers use, what bounds them and what they changed: stats, update, diff, export, commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from longshore.api import query
from longshore.api.http import Request, Response
from longshore.api.respond import JSON, json_response
from longshore.types.codec import convert, encode
from longshore.types.container import Config
from longshore.types.stats import CommitResponse, StatsResponse, UpdateRequest

if TYPE_CHECKING:
    from longshore.engine.engine import Engine


async def get_containers_stats(engine: Engine, request: Request) -> Response:
    """docker stats"""
    from longshore.engine.stats import container_stats

    readings = container_stats(
        engine,
        request.vars["name"],
        stream=query.boolean(request, "stream", default=True),
        one_shot=query.boolean(request, "one-shot") and request.version >= (1, 41),
    )
    return Response(200, _lines(readings), dict(JSON))


async def _lines(readings: AsyncIterator[StatsResponse]) -> AsyncIterator[bytes]:
    async for reading in readings:
        yield encode(reading) + b"\n"


async def post_container_update(engine: Engine, request: Request) -> Response:
    """docker update"""
    from longshore.engine.update import container_update

    options = await query.json_body(request, UpdateRequest)
    if request.version < (1, 40):
        options.PidsLimit = None
    return json_response(await container_update(engine, request.vars["name"], options))


async def get_containers_changes(engine: Engine, request: Request) -> Response:
    """docker diff"""
    from longshore.engine.changes import container_changes

    return json_response(await container_changes(engine, request.vars["name"]))


async def get_containers_export(engine: Engine, request: Request) -> Response:
    """docker export"""
    from longshore.engine.export import container_export

    archive = await container_export(engine, request.vars["name"])
    return Response(200, archive, {"Content-Type": "application/octet-stream"})


async def post_commit(engine: Engine, request: Request) -> Response:
    """docker commit"""
    from longshore.engine.commit import CommitOptions, container_commit

    plain = await query.json_object(request)
    id = await container_commit(
        engine,
        query.string(request, "container"),
        CommitOptions(
            repo=query.string(request, "repo"),
            tag=query.string(request, "tag"),
            comment=query.string(request, "comment"),
            author=query.string(request, "author"),
            changes=request.query.get("changes", []),
            pause=query.boolean(request, "pause", default=True),
            config=convert(plain, Config) if plain else None,
        ),
    )
    return json_response(CommitResponse(id), 201)
