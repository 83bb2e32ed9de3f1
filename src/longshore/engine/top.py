"""List a container's processes."""

from __future__ import annotations

import asyncio

from longshore.engine.engine import Engine
from longshore.errors import Conflict, InvalidParameter, System
from longshore.types.codec import ApiStruct
from longshore.types.numbers import decimal


class ContainerTopResponse(ApiStruct):
    """Answer to GET /containers/{id}/top."""

    Titles: list[str]
    Processes: list[list[str]]


async def container_top(engine: Engine, name: str, ps_args: str = "") -> ContainerTopResponse:
    """GET /containers/{id}/top: the machine's `ps`, reduced to the container's processes.

    Raises NotFound, Conflict if it does not run, InvalidParameter if the arguments leave out the pid.
    """
    container = engine.containers.get(name)
    if not container.state.Running:
        raise Conflict(f"container {container.id} is not running")
    if container.state.Restarting:
        raise Conflict(f"container {container.id} is restarting, wait until the container is running")
    pids = set(await engine.runtime.pids(container.id))
    arguments = (ps_args or "-ef").split()
    # By pid first: a container of ten thousand processes would overrun the command line otherwise.
    output = await _ps(*arguments)
    top = _parse(output, pids)
    engine.log_container_event(container, "top")
    return top


async def _ps(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "ps", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise System(f"ps: {errors.decode(errors='replace').strip()}")
    return output.decode(errors="replace")


def _parse(output: str, pids: set[int]) -> ContainerTopResponse:
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidParameter("Couldn't find PID field in ps output")
    column = titles.index("PID")
    processes = []
    for line in lines[1:]:
        # The last column, the command, may hold blanks.
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and decimal(fields[column]) in pids:
            processes.append(fields)
    return ContainerTopResponse(titles, processes)
