"""/auth, /distribution, /images/search, and /images/{name}/push"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from longshore.api import query
from longshore.api.http import Request, Response
from longshore.api.respond import json_response, progress_response
from longshore.errors import InvalidParameter
from longshore.types.registry import AuthConfig, decode_auth

if TYPE_CHECKING:
    from longshore.engine.engine import Engine

_LONGEST_CREDENTIALS = 1 << 20


async def post_auth(engine: Engine, request: Request) -> Response:
    """docker login"""
    from longshore.engine.auth import authenticate

    auth = await _auth_body(request)
    return json_response(await authenticate(engine, auth))


async def post_images_push(engine: Engine, request: Request) -> Response:
    """docker push"""
    from longshore.api.handlers.images import platforms
    from longshore.engine.push import image_push

    if request.headers.get("x-registry-auth"):
        auth = lenient_auth(request)
    else:
        try:
            auth = await _auth_body(request)
        except InvalidParameter as exc:
            raise InvalidParameter(
                f"bad parameters and missing X-Registry-Auth: invalid X-Registry-Auth header: {exc}"
            ) from None
    wanted = next(iter(platforms(request)), "")
    pushed = await image_push(engine, request.vars["name"], query.string(request, "tag"), auth, wanted)
    return await progress_response(pushed)


async def get_distribution(engine: Engine, request: Request) -> Response:
    """docker manifest inspect, docker service create: what a name means in its registry"""
    from longshore.engine.distribution import distribution_inspect

    return json_response(await distribution_inspect(engine, request.vars["name"], lenient_auth(request)))


async def get_images_search(engine: Engine, request: Request) -> Response:
    """docker search"""
    from longshore.engine.distribution import images_search

    text = query.string(request, "limit")
    try:
        limit = int(text) if text else 25
    except ValueError:
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax') from None
    term, chosen = query.string(request, "term"), query.filters(request)
    return json_response(await images_search(engine, term, limit or 25, chosen, lenient_auth(request)))


def lenient_auth(request: Request) -> AuthConfig:
    """The credentials sent along; none if they cannot be read, which a public image does not need anyway."""
    try:
        return decode_auth(request.headers.get("x-registry-auth", ""))
    except InvalidParameter:
        return AuthConfig()


async def _auth_body(request: Request) -> AuthConfig:
    content = bytearray()
    async for chunk in aiter(request.body):
        content += chunk
        if len(content) > _LONGEST_CREDENTIALS:
            raise InvalidParameter("the credentials are too long")
    if not content:
        raise InvalidParameter("EOF")
    try:
        return msgspec.json.decode(content, type=AuthConfig)
    except ValueError as exc:
        raise InvalidParameter(str(exc)) from None
