"""/_ping, /info, /version, /events, /system and /plugins"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from longshore.api import query
from longshore.api.http import Request, Response
from longshore.api.respond import JSON, json_response
from longshore.errors import InvalidParameter
from longshore.types.codec import encode
from longshore.types.events import EventMessage

if TYPE_CHECKING:
    from longshore.engine.engine import Engine


async def get_ping(engine: Engine, request: Request) -> Response:
    """docker's first question: is anybody there, and which API do you speak"""
    headers = {
        # Which builder a client should use that has both: 2 is BuildKit, 1 the classic one.
        "Builder-Version": "2" if engine.config.features.get("buildkit", True) else "1",
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
        "Swarm": "inactive",
        "Content-Type": "text/plain; charset=utf-8",
    }
    if request.method == "HEAD":
        return Response(200, b"", {**headers, "Content-Length": "0"})
    return Response(200, b"OK", headers)


async def get_info(engine: Engine, request: Request) -> Response:
    """docker info"""
    from longshore.engine.info import as_of_version, system_info

    return json_response(as_of_version(await system_info(engine), request.version))


async def get_version(engine: Engine, request: Request) -> Response:
    """docker version"""
    from longshore.engine.version import system_version

    return json_response(await system_version(engine))


async def get_disk_usage(engine: Engine, request: Request) -> Response:
    """docker system df"""
    from longshore.engine.df import OBJECT_TYPES, system_disk_usage

    wanted = request.query.get("type", []) if request.version >= (1, 42) else []
    for name in wanted:
        if name not in OBJECT_TYPES:
            raise InvalidParameter(f"unknown object type: {name}")
    return json_response(await system_disk_usage(engine, frozenset(wanted) or OBJECT_TYPES, request.version))


async def get_plugins(engine: Engine, request: Request) -> Response:
    """docker plugin ls; there are none"""
    query.filters(request)
    return json_response([])


async def get_events(engine: Engine, request: Request) -> Response:
    """docker events"""
    subscription = engine.events.subscribe(
        query.filters(request), query.string(request, "since"), query.string(request, "until")
    )
    return Response(200, _events(subscription), dict(JSON))


async def _events(messages: AsyncIterator[EventMessage]) -> AsyncIterator[bytes]:
    async for message in messages:
        yield encode(message) + b"\n"
