"""/longshore/trace: where the time of an operation went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longshore.api.http import Request, Response
from longshore.api.respond import json_response
from longshore.errors import NotFound

if TYPE_CHECKING:
    from longshore.engine.engine import Engine


async def get_traces(engine: Engine, request: Request) -> Response:
    """The traces that are kept, oldest first"""
    return json_response(engine.traces.all())


async def get_trace(engine: Engine, request: Request) -> Response:
    """The latest trace of a container"""
    name = request.vars["name"]
    container = engine.containers.get(name)
    trace = engine.traces.latest(container.id)
    if trace is None:
        raise NotFound(f"no trace of container {name} is kept")
    return json_response(trace)
