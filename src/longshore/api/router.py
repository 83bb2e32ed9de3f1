"""Every route of the API, and the way of a request to its handler: version, route, errors."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from longshore import __version__
from longshore.api.errors import error_response
from longshore.api.handlers import (
    archive,
    build,
    checkpoints,
    containers,
    exec,
    images,
    networks,
    registry,
    session,
    stats,
    streams,
    swarm,
    system,
    traces,
    volumes,
)
from longshore.api.http import Request, Response
from longshore.api.routes import Route, RouteTable
from longshore.engine.version import API_VERSION, MIN_API_VERSION
from longshore.errors import InvalidParameter, NotFound

if TYPE_CHECKING:
    from longshore.engine.engine import Engine

ROUTES: tuple[Route, ...] = (
    # system
    Route("GET", "/_ping", system.get_ping),
    Route("HEAD", "/_ping", system.get_ping),
    Route("GET", "/events", system.get_events, "since until filters"),
    Route("GET", "/info", system.get_info),
    Route("GET", "/version", system.get_version),
    Route("GET", "/system/df", system.get_disk_usage, "type", since=(1, 25)),
    Route("GET", "/plugins", system.get_plugins, "filters", since=(1, 25)),
    # containers
    Route("GET", "/containers/json", containers.get_containers_json, "all limit size filters"),
    Route("GET", "/containers/{name:.*}/json", containers.get_containers_by_name, "size"),
    Route("GET", "/containers/{name:.*}/top", containers.get_containers_top, "ps_args"),
    Route(
        "GET",
        "/containers/{name:.*}/logs",
        streams.get_containers_logs,
        "follow stdout stderr since until timestamps tail details",
    ),
    Route(
        "GET",
        "/containers/{name:.*}/attach/ws",
        streams.ws_containers_attach,
        "detachKeys logs stream stdin stdout stderr",
        hijacks=True,
    ),
    Route("GET", "/containers/{name:.*}/checkpoints", checkpoints.get_checkpoints, "dir", since=(1, 25)),
    Route("POST", "/containers/{name:.*}/checkpoints", checkpoints.post_checkpoint, since=(1, 25)),
    Route(
        "DELETE",
        "/containers/{name}/checkpoints/{checkpoint}",
        checkpoints.delete_checkpoint,
        "dir",
        since=(1, 25),
    ),
    Route("POST", "/containers/create", containers.post_containers_create, "name platform"),
    Route("POST", "/containers/{name:.*}/kill", containers.post_containers_kill, "signal"),
    Route("POST", "/containers/{name:.*}/pause", containers.post_containers_pause),
    Route("POST", "/containers/{name:.*}/unpause", containers.post_containers_unpause),
    Route("POST", "/containers/{name:.*}/restart", containers.post_containers_restart, "t signal"),
    Route(
        "POST", "/containers/{name:.*}/start", containers.post_containers_start, "checkpoint checkpoint-dir"
    ),
    Route("POST", "/containers/{name:.*}/stop", containers.post_containers_stop, "t signal"),
    Route("POST", "/containers/{name:.*}/wait", streams.post_containers_wait, "condition"),
    Route("POST", "/containers/{name:.*}/resize", containers.post_containers_resize, "h w"),
    Route(
        "POST",
        "/containers/{name:.*}/attach",
        streams.post_containers_attach,
        "detachKeys logs stream stdin stdout stderr",
        hijacks=True,
    ),
    Route("POST", "/containers/{name:.*}/rename", containers.post_containers_rename, "name"),
    Route("HEAD", "/containers/{name:.*}/archive", archive.head_containers_archive, "path"),
    Route("GET", "/containers/{name:.*}/archive", archive.get_containers_archive, "path"),
    Route(
        "PUT",
        "/containers/{name:.*}/archive",
        archive.put_containers_archive,
        "path noOverwriteDirNonDir copyUIDGID",
    ),
    Route("GET", "/containers/{name:.*}/changes", stats.get_containers_changes),
    Route("GET", "/containers/{name:.*}/export", stats.get_containers_export),
    Route("GET", "/containers/{name:.*}/stats", stats.get_containers_stats, "stream one-shot"),
    Route("POST", "/containers/{name:.*}/update", stats.post_container_update),
    Route("POST", "/containers/{name:.*}/exec", exec.post_container_exec_create),
    Route("GET", "/exec/{id:.*}/json", exec.get_exec_by_id),
    Route("POST", "/exec/{name:.*}/start", exec.post_container_exec_start, hijacks=True),
    Route("POST", "/exec/{name:.*}/resize", exec.post_container_exec_resize, "h w"),
    Route("POST", "/containers/prune", containers.post_containers_prune, "filters", since=(1, 25)),
    Route("DELETE", "/containers/{name:.*}", containers.delete_containers, "v force link"),
    Route("POST", "/commit", stats.post_commit, "container repo tag comment author changes pause"),
    # images
    Route("GET", "/images/json", images.get_images_json, "all filters filter shared-size digests manifests"),
    Route("GET", "/images/get", images.get_images_get, "names platform"),
    Route("GET", "/images/search", registry.get_images_search, "term limit filters"),
    Route("GET", "/images/{name:.*}/get", images.get_images_get, "platform"),
    Route("GET", "/images/{name:.*}/history", images.get_images_history, "platform"),
    Route("GET", "/images/{name:.*}/json", images.get_images_by_name, "manifests platform"),
    Route("POST", "/images/load", images.post_images_load, "quiet platform"),
    Route(
        "POST",
        "/images/create",
        images.post_images_create,
        "fromImage fromSrc repo tag message platform changes",
    ),
    Route("POST", "/images/{name:.*}/push", registry.post_images_push, "tag platform"),
    Route("POST", "/images/{name:.*}/tag", images.post_images_tag, "repo tag"),
    Route("POST", "/images/prune", images.post_images_prune, "filters", since=(1, 25)),
    Route("DELETE", "/images/{name:.*}", images.delete_images, "force noprune platforms"),
    # registries
    Route("POST", "/auth", registry.post_auth),
    Route("GET", "/distribution/{name:.*}/json", registry.get_distribution, since=(1, 30)),
    # builds
    Route(
        "POST",
        "/build",
        build.post_build,
        "buildargs buildid cachefrom cgroupparent cpuperiod cpuquota cpusetcpus cpusetmems cpushares "
        "dockerfile extrahosts forcerm isolation labels memory memswap networkmode nocache outputs platform "
        "pull q remote rm securityopt session shmsize squash t target ulimits version",
    ),
    Route(
        "POST",
        "/build/prune",
        build.post_build_prune,
        "all filters keep-storage max-used-space min-free-space reserved-space",
        since=(1, 31),
    ),
    Route("POST", "/build/cancel", build.post_build_cancel, "id", since=(1, 31)),
    Route("POST", "/session", session.post_session, since=(1, 31), hijacks=True),
    Route("POST", "/grpc", session.post_grpc, since=(1, 39), hijacks=True),
    # networks
    Route("GET", "/networks", networks.get_networks, "filters"),
    Route("GET", "/networks/", networks.get_networks, "filters"),
    Route("GET", "/networks/{id:.+}", networks.get_network, "verbose scope"),
    Route("POST", "/networks/create", networks.post_network_create),
    Route("POST", "/networks/{id:.*}/connect", networks.post_network_connect),
    Route("POST", "/networks/{id:.*}/disconnect", networks.post_network_disconnect),
    Route("POST", "/networks/prune", networks.post_networks_prune, "filters", since=(1, 25)),
    Route("DELETE", "/networks/{id:.*}", networks.delete_network),
    # volumes
    Route("GET", "/volumes", volumes.get_volumes_list, "filters"),
    Route("GET", "/volumes/{name:.*}", volumes.get_volume_by_name),
    Route("POST", "/volumes/create", volumes.post_volumes_create),
    Route("POST", "/volumes/prune", volumes.post_volumes_prune, "filters", since=(1, 25)),
    Route("PUT", "/volumes/{name:.*}", volumes.put_volumes_update, "version", since=(1, 42)),
    Route("DELETE", "/volumes/{name:.*}", volumes.delete_volumes, "force"),
    # swarm, of which this node is no part
    *swarm.ROUTES,
    # Longshore's own
    Route("GET", "/longshore/trace", traces.get_traces),
    Route("GET", "/longshore/trace/{name:.*}", traces.get_trace),
)

_VERSIONED = re.compile(r"/v([0-9.]+)(/.*)", re.DOTALL)


class Router:
    """Answers requests with the engine's verbs."""

    def __init__(self, engine: Engine, routes: tuple[Route, ...] = ROUTES) -> None:
        self._engine = engine
        self._table = RouteTable(routes)

    async def answer(self, request: Request) -> Response | None:
        """The answer to `request`; errors too are answers. None if the handler took the connection over."""
        clean = _clean(request.path)
        if clean != request.path:
            return Response(301, headers={"Location": quote(clean)})
        versioned = _VERSIONED.fullmatch(request.path)
        path = versioned[2] if versioned else request.path
        found = self._table.find(request.method, path)
        if found is None:
            return error_response(NotFound("page not found"), request.path)
        route, request.vars = found
        request.common = {
            "Api-Version": _dotted(API_VERSION),
            "Docker-Experimental": "true" if self._engine.config.experimental else "false",
            "Ostype": "linux",
            "Server": f"Longshore/{__version__} (linux)",
        }
        try:
            request.version = _check_version(versioned[1]) if versioned else API_VERSION
            if request.version < route.since:
                raise NotFound("page not found")
            return await route.handler(self._engine, request)
        except ConnectionError:
            raise
        except Exception as exc:
            return error_response(exc, f"{request.method} {request.path}")


def _check_version(text: str) -> tuple[int, ...]:
    # More digits than Go's comparison can hold are as much too new as it gets.
    version = tuple(int(part[:18] or 0) for part in text.split("."))
    if version < MIN_API_VERSION:
        raise InvalidParameter(
            f"client version {text} is too old. Minimum supported API version is {_dotted(MIN_API_VERSION)}, "
            "please upgrade your client to a newer version"
        )
    if version > API_VERSION:
        raise InvalidParameter(
            f"client version {text} is too new. Maximum supported API version is {_dotted(API_VERSION)}"
        )
    return version


def _clean(path: str) -> str:
    """As Go's path.Clean, but keeping a trailing slash."""
    if "//" not in path and "/." not in path and path.startswith("/"):
        return path
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
