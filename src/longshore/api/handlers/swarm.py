"""Swarm's routes, answered as by any node that is no part of a swarm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longshore.api.http import Request, Response
from longshore.api.routes import Route
from longshore.errors import Unavailable

if TYPE_CHECKING:
    from longshore.engine.engine import Engine


async def not_a_manager(engine: Engine, request: Request) -> Response:
    """Every swarm route"""
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
        "node to swarm and try again."
    )


async def not_in_a_swarm(engine: Engine, request: Request) -> Response:
    """docker swarm leave"""
    raise Unavailable("This node is not part of a swarm")


ROUTES = (
    Route("GET", "/swarm", not_a_manager),
    Route("GET", "/swarm/unlockkey", not_a_manager),
    Route("POST", "/swarm/update", not_a_manager, "version rotateWorkerToken rotateManagerToken"),
    Route("POST", "/swarm/leave", not_in_a_swarm, "force"),
    *(
        Route(method, path, not_a_manager)
        for noun in ("nodes", "services", "tasks", "secrets", "configs")
        for method, path in (
            ("GET", f"/{noun}"),
            ("GET", f"/{noun}/{{id}}"),
            *((("GET", f"/{noun}/{{id}}/logs"),) if noun in ("services", "tasks") else ()),
            *((("POST", f"/{noun}/create"),) if noun in ("services", "secrets", "configs") else ()),
            *((("POST", f"/{noun}/{{id}}/update"),) if noun != "tasks" else ()),
            *((("DELETE", f"/{noun}/{{id}}"),) if noun != "tasks" else ()),
        )
    ),
)
