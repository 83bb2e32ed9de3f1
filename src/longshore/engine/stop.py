"""Stop and restart a container."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.kill import kill_and_wait, send_signal
from longshore.errors import Conflict, NotModified
from longshore.linux.signals import parse_signal

DEFAULT_TIMEOUT = 10
"""Seconds between the stop signal and SIGKILL where nobody says otherwise."""

log = logging.getLogger(__name__)


async def container_stop(engine: Engine, name: str, signal: str = "", timeout: int | None = None) -> None:
    """POST /containers/{id}/stop. `timeout` in seconds, negative: wait for ever, None: the container's.

    Raises NotFound, NotModified if it does not run, InvalidParameter for a signal that does not exist.
    """
    container = engine.containers.get(name)
    if not container.state.Running:
        raise NotModified(f"container {container.id} is already stopped")
    await stop_container(engine, container, signal, timeout)


async def container_restart(engine: Engine, name: str, signal: str = "", timeout: int | None = None) -> None:
    """POST /containers/{id}/restart: stop it if it runs, then start it. `--rm` does not apply between.

    Raises as stop and start do.
    """
    from longshore.engine.start import check_startable, start_container

    container = engine.containers.get(name)
    container.keep_after_exit += 1
    try:
        if container.state.Running:
            await stop_container(engine, container, signal, timeout)
        async with container.lock:
            if not container.state.Running:
                check_startable(container)
                await start_container(engine, container)
    finally:
        container.keep_after_exit -= 1
    engine.log_container_event(container, "restart")


async def stop_container(
    engine: Engine, container: Container, signal: str = "", timeout: int | None = None
) -> None:
    """Send the stop signal, wait, then use force. Returns once the container is at rest."""
    number = parse_signal(signal or container.config.StopSignal or "SIGTERM")
    if timeout is None:
        timeout = container.config.StopTimeout
    if timeout is None:
        timeout = DEFAULT_TIMEOUT
    gone = container.wait("not-running")
    container.stop_requested = True
    with contextlib.suppress(Conflict):  # It ended by itself; if it was to be restarted, it is not now.
        await send_signal(engine, container, number)
        container.stop_requested = True
    try:
        await asyncio.wait_for(asyncio.shield(gone), None if timeout < 0 else timeout)
    except TimeoutError:
        log.info(
            "container %s failed to exit within %ds of signal %d - using the force",
            container.id[:12],
            timeout,
            number,
        )
        with contextlib.suppress(Conflict):
            await kill_and_wait(engine, container)
    engine.log_container_event(container, "stop")


def stop_timeout(container: Container) -> int:
    """Seconds the container may take to stop; negative for ever."""
    timeout = container.config.StopTimeout
    return DEFAULT_TIMEOUT if timeout is None else timeout
