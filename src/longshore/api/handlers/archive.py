"""/containers/…/archive: docker cp."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from longshore.api import query
from longshore.api.http import Request, Response
from longshore.errors import InvalidParameter
from longshore.types.codec import encode

if TYPE_CHECKING:
    from longshore.engine.archive import ContainerPathStat
    from longshore.engine.engine import Engine

TAR = "application/x-tar"


async def head_containers_archive(engine: Engine, request: Request) -> Response:
    """What docker cp asks first"""
    from longshore.engine.archive import container_stat_path

    found = await container_stat_path(engine, request.vars["name"], _path(request))
    return Response(200, headers=_described(found))


async def get_containers_archive(engine: Engine, request: Request) -> Response:
    """docker cp from a container"""
    from longshore.engine.archive import container_archive_path

    found, archive = await container_archive_path(engine, request.vars["name"], _path(request))
    return Response(200, archive, {"Content-Type": TAR, **_described(found)})


async def put_containers_archive(engine: Engine, request: Request) -> Response:
    """docker cp into a container"""
    from longshore.engine.archive import ExtractOptions, container_extract_to_dir

    options = ExtractOptions(
        no_overwrite_dir_non_dir=query.boolean(request, "noOverwriteDirNonDir"),
        copy_uid_gid=query.boolean(request, "copyUIDGID"),
    )
    await container_extract_to_dir(
        engine, request.vars["name"], _path(request), options, request.body.__aiter__()
    )
    return Response(200)


def _path(request: Request) -> str:
    path = query.string(request, "path")
    if not path:
        raise InvalidParameter("bad parameter: pathcannot be empty")
    return path


def _described(found: ContainerPathStat) -> dict[str, str]:
    return {"X-Docker-Container-Path-Stat": base64.b64encode(encode(found)).decode()}
