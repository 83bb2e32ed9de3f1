"""/build"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from longshore.api import query
from longshore.api.http import Request, Response
from longshore.api.respond import json_response, no_content, progress_response
from longshore.errors import InvalidParameter
from longshore.types.codec import decode

if TYPE_CHECKING:
    from longshore.engine.builder.options import BuildOptions
    from longshore.engine.builder.solve import Output
    from longshore.engine.engine import Engine
    from longshore.types.container import HostConfig
    from longshore.types.registry import AuthConfig

T = TypeVar("T")


async def post_build(engine: Engine, request: Request) -> Response:
    """docker build, with the classic builder or, with version=2, BuildKit"""
    options = _options(engine, request)
    if query.string(request, "version") == "2":
        from longshore.engine.builder.v2 import image_solve

        id, outputs = query.string(request, "buildid"), _outputs(request)
        messages = image_solve(engine, options, id, outputs, aiter(request.body))
    else:
        from longshore.engine.builder.build import image_build

        messages = image_build(engine, options, aiter(request.body))
    progress = await request.connection.while_here(messages)
    return await progress_response(progress, errors_in_stream=True)


async def post_build_prune(engine: Engine, request: Request) -> Response:
    """docker builder prune, and a part of docker system prune"""
    from longshore.engine.builder.cachemounts import PruneLimits, build_prune

    def size(name: str) -> int:
        return query.integer(request, name) or 0

    # The older name of the first one.
    reserved = size("reserved-space") or size("keep-storage")
    limits = PruneLimits(reserved, size("max-used-space"), size("min-free-space"))
    return json_response(await build_prune(engine, query.filters(request), limits))


async def post_build_cancel(engine: Engine, request: Request) -> Response:
    """Cancel a build of BuildKit's; others end with their client"""
    id = query.string(request, "id")
    if not id:
        raise InvalidParameter("build ID not provided")
    engine.build_jobs.cancel(id)
    return no_content()


def _options(engine: Engine, request: Request) -> BuildOptions:
    """Raises InvalidParameter for what the classic builder cannot do, or nobody."""
    from longshore.engine.builder.options import BuildOptions

    _refuse(engine, request)
    force_remove = query.boolean(request, "forcerm")
    return BuildOptions(
        tags=[name for name in request.query.get("t", []) if name],
        dockerfile=query.string(request, "dockerfile"),
        remote=query.string(request, "remote"),
        target=query.string(request, "target"),
        platform=query.string(request, "platform") if request.version >= (1, 32) else "",
        quiet=query.boolean(request, "q"),
        no_cache=query.boolean(request, "nocache"),
        pull=query.boolean(request, "pull"),
        squash=query.boolean(request, "squash"),
        remove=force_remove or not query.string(request, "rm") or query.boolean(request, "rm"),
        force_remove=force_remove,
        arguments=_json(request, "buildargs", "build args", dict[str, str | None]) or {},
        labels=_json(request, "labels", "labels", dict[str, str]) or {},
        cache_from=_json(request, "cachefrom", "cache-from", list[str]) or [],
        host_config=_host_config(request),
        credentials=_credentials(request),
        session=query.string(request, "session"),
    )


def _refuse(engine: Engine, request: Request) -> None:
    version = query.string(request, "version")
    if version not in ("", "1", "2"):
        raise InvalidParameter(f'invalid version "{version}"')
    if (isolation := query.string(request, "isolation").lower()) not in ("", "default"):
        raise InvalidParameter(f'Unsupported isolation: "{isolation}"')
    if query.boolean(request, "squash") and version == "2":
        raise InvalidParameter("squash is not supported by BuildKit")
    if query.boolean(request, "squash") and not engine.config.experimental:
        raise InvalidParameter("squash is only supported with experimental mode")
    if version != "2" and query.string(request, "outputs") not in ("", "null", "[]"):
        raise InvalidParameter("outputs need BuildKit: build an image, and take files out with docker cp")
    if request.query.get("securityopt") and _json(request, "securityopt", "security options", list[str]):
        raise InvalidParameter(
            "The daemon on this platform does not support setting security options on build"
        )


def _outputs(request: Request) -> list[Output]:
    from longshore.engine.builder.solve import Output
    from longshore.types.build import ImageBuildOutput

    found = _json(request, "outputs", "outputs", list[ImageBuildOutput]) or []
    return [Output(each.Type, each.Attrs or {}) for each in found]


def _host_config(request: Request) -> HostConfig:
    from longshore.types.container import HostConfig
    from longshore.types.resources import Ulimit

    def number(name: str) -> int:
        # dockerd ignores what is no number here.
        try:
            return query.integer(request, name, 0) or 0
        except InvalidParameter:
            return 0

    return HostConfig(
        CgroupParent=query.string(request, "cgroupparent"),
        CpuShares=number("cpushares"),
        CpuPeriod=number("cpuperiod"),
        CpuQuota=number("cpuquota"),
        CpusetCpus=query.string(request, "cpusetcpus"),
        CpusetMems=query.string(request, "cpusetmems"),
        Memory=number("memory"),
        MemorySwap=number("memswap"),
        ShmSize=number("shmsize"),
        NetworkMode=query.string(request, "networkmode"),
        ExtraHosts=request.query.get("extrahosts"),
        Ulimits=_json(request, "ulimits", "ulimit settings", list[Ulimit]) or None,
    )


def _json(request: Request, name: str, told: str, kind: type[T]) -> T | None:
    text = query.string(request, name)
    if not text or text == "null":
        return None
    try:
        return decode(text.encode(), kind)
    except InvalidParameter as exc:
        raise InvalidParameter(f"error reading {told}: {exc}") from None


def _credentials(request: Request) -> dict[str, AuthConfig]:
    """The X-Registry-Config header: JSON in base64. What cannot be read counts as nothing, as in dockerd."""
    import base64
    import binascii

    from longshore.types.registry import AuthConfig

    header = request.headers.get("x-registry-config", "")
    try:
        text = base64.b64decode(header.replace("-", "+").replace("_", "/") + "=" * (-len(header) % 4))
        return msgspec.json.decode(text, type=dict[str, AuthConfig]) if text else {}
    except (binascii.Error, ValueError):
        return {}
