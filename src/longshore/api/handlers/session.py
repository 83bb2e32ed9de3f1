"""/session and /grpc: connections that become gRPC's"""

from __future__ import annotations

from typing import TYPE_CHECKING

from longshore.api.hijack import check_h2c, hijack_h2c
from longshore.api.http import Request

if TYPE_CHECKING:
    from longshore.engine.engine import Engine

_EXPOSE = "x-docker-expose-session-"


async def post_session(engine: Engine, request: Request) -> None:
    """docker build: the connection over which a build asks its client for files, secrets and agents"""
    from longshore.buildkit.sessions import Session

    check_h2c(request)
    headers = request.headers
    methods = headers.get(f"{_EXPOSE}grpc-method", "").split(",")
    session = Session(headers.get(f"{_EXPOSE}uuid", ""), headers.get(f"{_EXPOSE}sharedkey", ""), methods)
    engine.sessions.check(session.id)
    await engine.sessions.serve(session, hijack_h2c(request), _health(request))


async def post_grpc(engine: Engine, request: Request) -> None:
    """docker buildx: BuildKit's services"""
    await engine.buildkit.serve(hijack_h2c(request))


def _health(request: Request) -> float:
    """Seconds between questions for the client's health, if it wants them to be others than usual."""
    text = request.headers.get("x-buildkit-session-health-custom-timeout", "")
    return max(1.0, int(text) / 1000) if text.isascii() and text.isdigit() and len(text) < 10 else 0
