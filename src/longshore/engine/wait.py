"""Wait for a container."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import cast, get_args

from longshore.containers.container import WaitCondition
from longshore.engine.engine import Engine
from longshore.errors import InvalidParameter
from longshore.types.container import ContainerWaitResponse, WaitExitError


async def container_wait(engine: Engine, name: str, condition: str = "") -> Awaitable[ContainerWaitResponse]:
    """POST /containers/{id}/wait. Returns once the waiting has begun; await the result for its end.

    Raises NotFound, InvalidParameter for a condition that does not exist.
    """
    if condition not in ("", *get_args(WaitCondition)):
        raise InvalidParameter(f'invalid condition: "{condition}"')
    container = engine.containers.get(name)
    future = container.wait(cast(WaitCondition, condition or "not-running"))

    async def result() -> ContainerWaitResponse:
        exit_code, error = await future
        return ContainerWaitResponse(exit_code, WaitExitError(error) if error else None)

    return result()
