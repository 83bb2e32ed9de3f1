"""/containers/…/attach, logs and wait: answers that last as long as the client stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING

from longshore.api import query
from longshore.api.hijack import MULTIPLEXED_STREAM, RAW_STREAM, accept_websocket, hijack
from longshore.api.http import MAX_DRAIN, Request, Response
from longshore.api.respond import JSON
from longshore.errors import EngineError, InvalidParameter
from longshore.types.codec import encode
from longshore.types.container import ContainerWaitResponse, WaitExitError

if TYPE_CHECKING:
    from longshore.engine.attach import Attachment
    from longshore.engine.engine import Engine

_CONDITIONS = ("not-running", "next-exit", "removed")


async def post_containers_attach(engine: Engine, request: Request) -> None:
    """docker attach, and the streams of docker run"""
    attachment = await _attach(engine, request)
    await request.body.read(MAX_DRAIN)
    connection = hijack(request, multiplexed=not attachment.tty)
    with suppress(OSError):  # the client left
        await attachment.run(connection)


async def ws_containers_attach(engine: Engine, request: Request) -> None:
    """Attach from a browser"""
    attachment = await _attach(engine, request)
    connection = accept_websocket(request)
    with suppress(OSError):
        await attachment.run(connection)
        await connection.close()


async def _attach(engine: Engine, request: Request) -> Attachment:
    from longshore.engine.attach import AttachOptions, container_attach

    return await container_attach(
        engine,
        request.vars["name"],
        AttachOptions(
            stdin=query.boolean(request, "stdin"),
            stdout=query.boolean(request, "stdout"),
            stderr=query.boolean(request, "stderr"),
            logs=query.boolean(request, "logs"),
            stream=query.boolean(request, "stream"),
            detach_keys=query.string(request, "detachKeys"),
        ),
    )


async def get_containers_logs(engine: Engine, request: Request) -> Response:
    """docker logs"""
    from longshore.engine.logs import LogsOptions, container_logs

    stdout, stderr = query.boolean(request, "stdout"), query.boolean(request, "stderr")
    if not (stdout or stderr):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    reply = await container_logs(
        engine,
        request.vars["name"],
        LogsOptions(
            stdout=stdout,
            stderr=stderr,
            since=query.string(request, "since"),
            until=query.string(request, "until"),
            tail=query.string(request, "tail"),
            follow=query.boolean(request, "follow"),
            timestamps=query.boolean(request, "timestamps"),
            details=query.boolean(request, "details"),
        ),
    )
    multiplexed = not reply.tty and request.version >= (1, 42)
    return Response(200, reply.frames, {"Content-Type": MULTIPLEXED_STREAM if multiplexed else RAW_STREAM})


async def post_containers_wait(engine: Engine, request: Request) -> Response:
    """docker wait; the answer's headers say that waiting has begun, which docker run relies on"""
    from longshore.engine.wait import container_wait

    condition = query.string(request, "condition") if request.version >= (1, 30) else ""
    if condition and condition not in _CONDITIONS:
        raise InvalidParameter(f'invalid condition: "{condition}"')
    outcome = await container_wait(engine, request.vars["name"], condition or "not-running")
    return Response(200, _outcome(outcome), dict(JSON))


async def _outcome(outcome: Awaitable[ContainerWaitResponse]) -> AsyncIterator[bytes]:
    try:
        answer = await outcome
    except EngineError as exc:
        answer = ContainerWaitResponse(StatusCode=-1, Error=WaitExitError(str(exc)))
    yield encode(answer) + b"\n"
