"""Send a container a signal."""

from __future__ import annotations

import asyncio
import contextlib
import signal as signals

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.restart_policy import cancel_restart
from longshore.errors import Conflict, EngineError, NotFound, System
from longshore.linux.signals import parse_signal

KILL_GRACE = 10.0
"""Seconds a killed process has to disappear before its process itself is killed past the runtime."""


async def container_kill(engine: Engine, name: str, signal: str) -> None:
    """POST /containers/{id}/kill. An empty signal is SIGKILL, after which the exit is waited for.

    Raises NotFound, InvalidParameter for a signal that does not exist, Conflict if it does not run.
    """
    number = parse_signal(signal) if signal else signals.SIGKILL
    try:
        container = engine.containers.get(name)
        if number in (0, signals.SIGKILL):
            await kill_and_wait(engine, container)
        else:
            await send_signal(engine, container, number)
    except (Conflict, NotFound) as exc:
        raise type(exc)(f"cannot kill container: {name}: {exc}") from None


async def send_signal(engine: Engine, container: Container, number: int) -> None:
    """Send `number`. A signal that is meant to end the container keeps it from being restarted.

    Raises Conflict if the container does not run.
    """
    async with container.lock:
        if not container.state.Running:
            raise Conflict(f"container {container.id} is not running")
        stop_signal = parse_signal(container.config.StopSignal) if container.config.StopSignal else None
        ends = stop_signal is None or number in (signals.SIGKILL, stop_signal)
        if ends:
            container.stop_requested = True
        if not engine.shutting_down and not container.record.HasBeenManuallyStopped:
            container.record.HasBeenManuallyStopped = True
            # The next daemon must not start again what was being stopped when this one died.
            await engine.containers.save(container)
        if container.state.Restarting:
            # Between two runs there is no process: not starting the next is the kill.
            cancel_restart(container)
            container.set_stopped(container.state.ExitCode, container.state.FinishedAt)
            await engine.containers.save(container)
            return
        try:
            await engine.runtime.kill(container.id, number)
        except NotFound:
            return  # It ended by itself meanwhile; the exit is on its way.
        except EngineError as exc:
            raise System(f"cannot kill container: {container.id}: {exc}") from exc
        if ends and container.state.Paused:
            # SIGKILL ends what is frozen under cgroup v1, too: there may be nothing left to resume.
            with contextlib.suppress(EngineError):
                await engine.runtime.resume(container.id)
    engine.log_container_event(container, "kill", signal=str(int(number)))


async def kill_and_wait(engine: Engine, container: Container) -> None:
    """SIGKILL, and wait for the exit to be dealt with.

    Raises Conflict if the container does not run, System if the kernel does not let the process go.
    """
    if not container.state.Running:
        raise Conflict(f"container {container.id} is not running")
    gone = container.wait("not-running")
    await send_signal(engine, container, signals.SIGKILL)
    try:
        await asyncio.wait_for(asyncio.shield(gone), KILL_GRACE)
    except TimeoutError:
        raise System(
            f"container {container.id} did not exit within {KILL_GRACE:.0f} s of SIGKILL: "
            f"process {container.state.Pid} is stuck in the kernel"
        ) from None
