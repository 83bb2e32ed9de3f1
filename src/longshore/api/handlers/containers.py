"""/containers, but for what streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longshore.api import query
from longshore.api.http import Request, Response
from longshore.api.respond import json_response, no_content
from longshore.errors import InvalidParameter
from longshore.types.codec import convert
from longshore.types.container import Config, ContainerCreateRequest

if TYPE_CHECKING:
    from longshore.engine.engine import Engine

_CONFIG_KEYS = frozenset(name.lower() for name in Config.__struct_fields__)


async def get_containers_json(engine: Engine, request: Request) -> Response:
    """docker ps"""
    from longshore.engine.listing import container_list

    return json_response(
        await container_list(
            engine,
            query.boolean(request, "all"),
            query.integer(request, "limit", 0) or 0,
            query.boolean(request, "size"),
            query.filters(request),
        )
    )


async def get_containers_by_name(engine: Engine, request: Request) -> Response:
    """docker inspect"""
    from longshore.engine.inspect import container_inspect

    return json_response(
        await container_inspect(engine, request.vars["name"], query.boolean(request, "size"), request.version)
    )


async def get_containers_top(engine: Engine, request: Request) -> Response:
    """docker top"""
    from longshore.engine.top import container_top

    return json_response(await container_top(engine, request.vars["name"], query.string(request, "ps_args")))


async def post_containers_create(engine: Engine, request: Request) -> Response:
    """docker create"""
    from longshore.api.create_versions import adapt_create_request
    from longshore.engine.create import container_create

    plain = await query.json_object(request)
    if plain is None:
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    if not any(key.lower() in _CONFIG_KEYS for key in plain):
        raise InvalidParameter("config cannot be empty in order to create a container")
    platform = query.string(request, "platform") if request.version >= (1, 41) else ""
    asked = convert(plain, ContainerCreateRequest)
    warnings = adapt_create_request(asked, request.version)
    created = await container_create(
        engine,
        query.string(request, "name"),
        asked,
        platform,
        read_only_recursive=request.version >= (1, 44),
    )
    created.Warnings += warnings
    return json_response(created, 201)


async def post_containers_start(engine: Engine, request: Request) -> Response:
    """docker start"""
    from longshore.engine.start import container_start

    # A JSON object that is not empty has at least 7 characters; very old clients send `null` or `{}`.
    if request.body.length is None or request.body.length > 7:
        raise InvalidParameter(
            "starting container with non-empty request body was deprecated since API v1.22 "
            "and removed in v1.24"
        )
    await container_start(
        engine,
        request.vars["name"],
        query.string(request, "checkpoint"),
        query.string(request, "checkpoint-dir"),
    )
    return no_content()


async def post_containers_stop(engine: Engine, request: Request) -> Response:
    """docker stop"""
    from longshore.engine.stop import container_stop

    await container_stop(engine, request.vars["name"], _stop_signal(request), query.integer(request, "t"))
    return no_content()


async def post_containers_restart(engine: Engine, request: Request) -> Response:
    """docker restart"""
    from longshore.engine.stop import container_restart

    await container_restart(engine, request.vars["name"], _stop_signal(request), query.integer(request, "t"))
    return no_content()


def _stop_signal(request: Request) -> str:
    return query.string(request, "signal") if request.version >= (1, 42) else ""


async def post_containers_kill(engine: Engine, request: Request) -> Response:
    """docker kill"""
    from longshore.engine.kill import container_kill

    await container_kill(engine, request.vars["name"], query.string(request, "signal"))
    return no_content()


async def post_containers_pause(engine: Engine, request: Request) -> Response:
    """docker pause"""
    from longshore.engine.pause import container_pause

    await container_pause(engine, request.vars["name"])
    return no_content()


async def post_containers_unpause(engine: Engine, request: Request) -> Response:
    """docker unpause"""
    from longshore.engine.pause import container_unpause

    await container_unpause(engine, request.vars["name"])
    return no_content()


async def post_containers_resize(engine: Engine, request: Request) -> Response:
    """What docker run does as the terminal's size changes."""
    from longshore.engine.resize import container_resize

    height, width = (_dimension(request, name) for name in ("h", "w"))
    await container_resize(engine, request.vars["name"], height, width)
    return Response(200)


def _dimension(request: Request, name: str) -> int:
    number = query.integer(request, name)
    if number is None:
        raise InvalidParameter(f'invalid resize {_LONG[name]} "": invalid syntax')
    if not 0 <= number < 1 << 32:
        raise InvalidParameter(f'invalid resize {_LONG[name]} "{number}": value out of range')
    return number


_LONG = {"h": "height", "w": "width"}


async def post_containers_rename(engine: Engine, request: Request) -> Response:
    """docker rename"""
    from longshore.engine.rename import container_rename

    await container_rename(engine, request.vars["name"], query.string(request, "name"))
    return no_content()


async def post_containers_prune(engine: Engine, request: Request) -> Response:
    """docker container prune"""
    from longshore.engine.prune import containers_prune

    return json_response(await containers_prune(engine, query.filters(request)))


async def delete_containers(engine: Engine, request: Request) -> Response:
    """docker rm"""
    from longshore.engine.remove import container_remove

    await container_remove(
        engine,
        request.vars["name"],
        force=query.boolean(request, "force"),
        volumes=query.boolean(request, "v"),
        link=query.boolean(request, "link"),
    )
    return no_content()
