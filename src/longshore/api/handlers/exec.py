"""/containers/…/exec and /exec: further processes in a container."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from longshore.api import query
from longshore.api.hijack import hijack
from longshore.api.http import Request, Response
from longshore.api.respond import json_response
from longshore.errors import EngineError, InvalidParameter
from longshore.types.exec import ExecCreateRequest, ExecCreateResponse, ExecStartRequest

if TYPE_CHECKING:
    from longshore.engine.engine import Engine


async def post_container_exec_create(engine: Engine, request: Request) -> Response:
    """The first half of docker exec"""
    from longshore.engine.exec import container_exec_create

    options = await query.json_body(request, ExecCreateRequest)
    if request.version < (1, 42):
        options.ConsoleSize = None
    return json_response(
        ExecCreateResponse(await container_exec_create(engine, request.vars["name"], options)), 201
    )


async def post_container_exec_start(engine: Engine, request: Request) -> Response | None:
    """The second half of docker exec; detached unless the connection becomes the process's streams"""
    from longshore.engine.exec import console_size, container_exec_start, find_active_exec
    from longshore.logs.attach import frame

    options = await query.json_body(request, ExecStartRequest)
    id = request.vars["name"]
    find_active_exec(engine, id)
    size = console_size(options.ConsoleSize) if options.Tty and request.version >= (1, 42) else None
    if options.Detach:
        await container_exec_start(engine, id, size=size)
        return Response(200)
    connection = hijack(request, multiplexed=not options.Tty)
    with suppress(OSError):  # the client left
        try:
            await container_exec_start(engine, id, connection, raw=options.Tty, size=size)
        except EngineError as exc:
            # The status is sent already: as in dockerd, the error is the last of the output.
            told = f"{exc}\r\n".encode()
            await connection.write(told if options.Tty else frame("stdout", told))
            await connection.close()
    return None


async def post_container_exec_resize(engine: Engine, request: Request) -> Response:
    """What docker exec does as the terminal's size changes"""
    from longshore.engine.exec import container_exec_resize

    height, width = query.integer(request, "h"), query.integer(request, "w")
    for name, number in (("height", height), ("width", width)):
        if number is None or not 0 <= number < 1 << 32:
            text = "" if number is None else str(number)
            raise InvalidParameter(f'invalid resize {name} "{text}": invalid syntax')
    await container_exec_resize(engine, request.vars["name"], height or 0, width or 0)
    return Response(200)


async def get_exec_by_id(engine: Engine, request: Request) -> Response:
    """How an exec is doing, or how it ended"""
    from longshore.engine.exec import container_exec_inspect

    return json_response(container_exec_inspect(engine, request.vars["id"]))
