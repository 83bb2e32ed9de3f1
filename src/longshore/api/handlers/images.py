"""/images"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from longshore.api import query
from longshore.api.handlers.registry import lenient_auth
from longshore.api.http import Request, Response
from longshore.api.respond import json_response, progress_response
from longshore.errors import InvalidParameter

if TYPE_CHECKING:
    from longshore.engine.engine import Engine


async def get_images_json(engine: Engine, request: Request) -> Response:
    """docker images"""
    from longshore.engine.images import image_list

    chosen = query.filters(request)
    if request.version < (1, 41) and (name := query.string(request, "filter")):
        chosen.setdefault("reference", []).append(name)
    return json_response(
        await image_list(
            engine,
            query.boolean(request, "all"),
            chosen,
            query.boolean(request, "shared-size"),
            query.boolean(request, "digests"),
            query.boolean(request, "manifests"),
            request.version,
        )
    )


async def get_images_by_name(engine: Engine, request: Request) -> Response:
    """docker image inspect"""
    from longshore.engine.images import image_inspect

    wanted = platforms(request, since=(1, 49))
    if wanted and query.boolean(request, "manifests"):
        raise InvalidParameter("conflicting options: manifests and platform options cannot both be set")
    name = request.vars["name"]
    return json_response(await image_inspect(engine, name, request.version, platform_of(wanted)))


async def get_images_history(engine: Engine, request: Request) -> Response:
    """docker history"""
    from longshore.engine.images import image_history

    wanted = platform_of(platforms(request))
    return json_response(await image_history(engine, request.vars["name"], wanted))


async def get_images_get(engine: Engine, request: Request) -> Response:
    """docker save"""
    from longshore.engine.images import image_save

    names = [request.vars["name"]] if "name" in request.vars else request.query.get("names", [])
    archive = await image_save(engine, names, platforms(request))
    return Response(200, archive, {"Content-Type": "application/x-tar"})


async def post_images_load(engine: Engine, request: Request) -> Response:
    """docker load"""
    from longshore.engine.images import image_load

    quiet = query.boolean(request, "quiet", default=True)
    progress = await image_load(engine, aiter(request.body), quiet, platforms(request))
    return await progress_response(progress, errors_in_stream=True)


async def post_images_create(engine: Engine, request: Request) -> Response:
    """docker pull, docker import"""
    from longshore.engine.images import image_import

    platform = query.string(request, "platform") if request.version >= (1, 32) else ""
    if image := query.string(request, "fromImage"):
        from longshore.engine.pull import image_pull

        pulled = await image_pull(
            engine, image, query.string(request, "tag"), platform, lenient_auth(request)
        )
        return await progress_response(pulled)
    source = query.string(request, "fromSrc")
    progress = await image_import(
        engine,
        source,
        query.string(request, "repo"),
        query.string(request, "tag"),
        query.string(request, "message"),
        request.query.get("changes", []),
        platform,
        aiter(request.body),
    )
    return await progress_response(progress)


async def post_images_tag(engine: Engine, request: Request) -> Response:
    """docker tag"""
    from longshore.engine.images import image_tag

    await image_tag(engine, request.vars["name"], query.string(request, "repo"), query.string(request, "tag"))
    return Response(201)


async def post_images_prune(engine: Engine, request: Request) -> Response:
    """docker image prune"""
    from longshore.engine.images import images_prune

    return json_response(await images_prune(engine, query.filters(request)))


async def delete_images(engine: Engine, request: Request) -> Response:
    """docker rmi"""
    from longshore.engine.images import image_delete

    name = request.vars["name"]
    if not name.strip():
        raise InvalidParameter("image name cannot be blank")
    force, noprune = query.boolean(request, "force"), query.boolean(request, "noprune")
    wanted = platform_of(platforms(request, "platforms", since=(1, 50)))
    return json_response(await image_delete(engine, name, force, noprune, wanted))


def platform_of(wanted: list[str]) -> str:
    """The only one. Raises InvalidParameter if there are several: a name here has one image only."""
    if len(wanted) > 1:
        raise InvalidParameter("multiple platforms are not supported")
    return wanted[0] if wanted else ""


def platforms(request: Request, name: str = "platform", since: tuple[int, int] = (1, 48)) -> list[str]:
    """The platforms asked for, sent as JSON, as `os/architecture[/variant]`. Raises InvalidParameter."""
    found = []
    for text in request.query.get(name, []) if request.version >= since else []:
        try:
            platform = msgspec.json.decode(text, type=dict[str, str | list[str]])
        except (msgspec.DecodeError, RecursionError):
            raise InvalidParameter(f"failed to parse platform: {text}") from None
        parts = (platform.get(key) for key in ("os", "architecture", "variant"))
        found.append("/".join(str(part) for part in parts if part))
    return found
