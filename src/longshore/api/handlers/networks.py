"""/networks"""

from __future__ import annotations

from typing import TYPE_CHECKING

from longshore.api import query
from longshore.api.http import Request, Response
from longshore.api.respond import json_response, no_content
from longshore.types.network import NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest

if TYPE_CHECKING:
    from longshore.engine.engine import Engine


async def get_networks(engine: Engine, request: Request) -> Response:
    """docker network ls"""
    from longshore.engine.networks import network_list

    return json_response(await network_list(engine, query.filters(request)))


async def get_network(engine: Engine, request: Request) -> Response:
    """docker network inspect"""
    from longshore.engine.networks import network_inspect

    scope = query.string(request, "scope")
    return json_response(await network_inspect(engine, request.vars["id"], scope))


async def post_network_create(engine: Engine, request: Request) -> Response:
    """docker network create"""
    from longshore.engine.networks import network_create

    wanted = await query.json_body(request, NetworkCreateRequest)
    return json_response(await network_create(engine, wanted), 201)


async def post_network_connect(engine: Engine, request: Request) -> Response:
    """docker network connect"""
    from longshore.engine.networks import network_connect

    wanted = await query.json_body(request, NetworkConnectRequest)
    await network_connect(engine, request.vars["id"], wanted.Container, wanted.EndpointConfig)
    return Response(200)


async def post_network_disconnect(engine: Engine, request: Request) -> Response:
    """docker network disconnect"""
    from longshore.engine.networks import network_disconnect

    wanted = await query.json_body(request, NetworkDisconnectRequest)
    await network_disconnect(engine, request.vars["id"], wanted.Container, wanted.Force)
    return Response(200)


async def post_networks_prune(engine: Engine, request: Request) -> Response:
    """docker network prune"""
    from longshore.engine.networks import networks_prune

    return json_response(await networks_prune(engine, query.filters(request)))


async def delete_network(engine: Engine, request: Request) -> Response:
    """docker network rm"""
    from longshore.engine.networks import network_remove

    await network_remove(engine, request.vars["id"])
    return no_content()
