"""Health checks: commands that are run in a container at intervals, to see whether it is still well.

Follows moby's daemon/health.go. A container has at most one monitor, from its start to its end; a pause
ends the monitor, too, and its resumption begins another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from longshore.containers.container import Container
from longshore.engine.exec import Exec, container_exec_start, register_exec
from longshore.errors import EngineError
from longshore.oci.exec import ExecInput
from longshore.types.container import Health, HealthcheckResult, HealthConfig
from longshore.types.timestamp import now, parse_rfc3339

if TYPE_CHECKING:
    from longshore.engine.engine import Engine

MAX_OUTPUT = 4096
"""Bytes of a probe's output that are kept."""
MAX_LOG_ENTRIES = 5
START_TIMEOUT = 30.0
"""Seconds for a probe's process to start; they do not count towards the probe's own timeout."""

DEFAULT_INTERVAL = 30_000_000_000
DEFAULT_TIMEOUT = 30_000_000_000
DEFAULT_START_INTERVAL = 5_000_000_000
DEFAULT_RETRIES = 3

log = logging.getLogger(__name__)


def init_health_monitor(engine: Engine, container: Container) -> None:
    """The container was started, restarted or taken back: nothing is known of its health yet."""
    if probe_command(container) is None:
        return
    stop_health_monitor(engine, container)
    health = container.state.Health
    if health is None:
        health = container.state.Health = Health()
    health.Status, health.FailingStreak = "starting", 0
    update_health_monitor(engine, container)


def update_health_monitor(engine: Engine, container: Container) -> None:
    """Let the monitor run if the container does and is not paused, else end it."""
    state = container.state
    command, config = probe_command(container), container.config.Healthcheck
    if state.Health is None or command is None or config is None:
        return
    if not state.Running or state.Paused:
        stop_health_monitor(engine, container)
    elif container.id not in engine.health_monitors:
        engine.health_monitors[container.id] = asyncio.create_task(
            _monitor(engine, container, config, command), name=f"health of {container.id[:12]}"
        )


def stop_health_monitor(engine: Engine, container: Container) -> None:
    """End the monitor, if any. Docker calls a container unhealthy that nobody watches any more."""
    monitor = engine.health_monitors.pop(container.id, None)
    if monitor is None:
        return
    monitor.cancel()
    if container.state.Health is not None:
        container.state.Health.Status = "unhealthy"


def stop_health_monitors(engine: Engine) -> None:
    """The daemon is leaving: end every monitor, and leave what is known of the containers as it is."""
    for monitor in engine.health_monitors.values():
        monitor.cancel()
    engine.health_monitors.clear()


def probe_command(container: Container) -> list[str] | None:
    """The words of the probe; None if the container has none, or has it switched off."""
    config = container.config.Healthcheck
    if config is None or not config.Test:
        return None
    kind, *words = config.Test
    match kind:
        case "CMD" if words:
            return words
        case "CMD-SHELL":
            return [*(container.config.Shell or ("/bin/sh", "-c")), *words]
        case "CMD" | "NONE":
            return None
    log.warning("unknown healthcheck type '%s' (expected 'CMD') in container %s", kind, container.id)
    return None


async def _monitor(engine: Engine, container: Container, config: HealthConfig, command: list[str]) -> None:
    started = time.monotonic_ns() - _age(container)
    while True:
        starting = container.state.Health is not None and container.state.Health.Status == "starting"
        pause = next_interval(config, time.monotonic_ns() - started, starting=starting)
        await asyncio.sleep(pause / 1e9)
        begun, age = now(), time.monotonic_ns() - started
        result = await _probe(engine, container, config, command)
        result.Start, result.End = begun, now()
        _handle_result(engine, container, config, result, age)


def _age(container: Container) -> int:
    """Nanoseconds since the container started, which may have been under an earlier daemon."""
    return max(0, time.time_ns() - parse_rfc3339(container.state.StartedAt))


def next_interval(config: HealthConfig, age: int, *, starting: bool) -> int:
    """Nanoseconds until the next probe of a container that has run for `age` nanoseconds.

    While a container starts it is probed more often, and at the latest when its start period ends.
    """
    remaining = config.StartPeriod - age
    if starting and remaining > 0:
        return min(remaining, config.StartInterval or DEFAULT_START_INTERVAL)
    return config.Interval or DEFAULT_INTERVAL


def _handle_result(
    engine: Engine, container: Container, config: HealthConfig, result: HealthcheckResult, age: int
) -> None:
    health = container.state.Health
    if health is None:
        return
    before = health.Status
    health.Log = [*(health.Log or []), result][-MAX_LOG_ENTRIES:]
    if result.ExitCode == 0:
        health.FailingStreak, health.Status = 0, "healthy"
    elif before != "starting" or age >= config.StartPeriod:
        health.FailingStreak += 1
        if health.FailingStreak >= (config.Retries if config.Retries > 0 else DEFAULT_RETRIES):
            health.Status = "unhealthy"
    if health.Status != before:
        engine.log_container_event(container, f"health_status: {health.Status}")


async def _probe(
    engine: Engine, container: Container, config: HealthConfig, command: list[str]
) -> HealthcheckResult:
    output = _Output()
    made = register_exec(engine, container, ExecInput(args=command))
    made.open_stdout = made.open_stderr = True
    running = engine.spawn(_run(engine, made, output), f"probe of {container.id[:12]}")
    try:
        # In a task of its own: a probe that is given up while it starts must still be killed.
        async with asyncio.timeout(START_TIMEOUT):
            await made.started.wait()
        return await _outcome(engine, made, running, output, config.Timeout or DEFAULT_TIMEOUT)
    except TimeoutError:
        return _failure(f"timed out starting health check for container {container.id}")
    finally:
        if not running.done():
            engine.spawn(_kill(engine, made), f"end of a probe of {container.id[:12]}")


async def _outcome(
    engine: Engine, made: Exec, running: asyncio.Task[str], output: _Output, timeout: int
) -> HealthcheckResult:
    done, _ = await asyncio.wait([running], timeout=timeout / 1e9)
    if not done:
        await _kill(engine, made)
        # Dying probes must not pile up.
        await asyncio.wait([running])
        told = f"Health check exceeded timeout ({_duration(timeout)})"
        return _failure(f"{told}: {output.text()}" if output.text() else told)
    if error := running.result():
        return _failure(error)
    return HealthcheckResult(ExitCode=made.exit_code or 0, Output=output.text())


async def _run(engine: Engine, made: Exec, output: _Output) -> str:
    """Run the probe to its end; why it did not start, if it did not."""
    try:
        await container_exec_start(engine, made.id, output, raw=True)
    except EngineError as exc:
        return exc.message
    finally:
        made.started.set()
        engine.execs.pop(made.id, None)
    return ""


async def _kill(engine: Engine, made: Exec) -> None:
    await made.started.wait()
    try:
        await engine.runtime.kill(made.container.id, 9, exec_id=made.id)
    except EngineError:
        return  # It has ended meanwhile.


def _failure(why: str) -> HealthcheckResult:
    return HealthcheckResult(ExitCode=-1, Output=why)


def _duration(nanoseconds: int) -> str:
    """As Go writes a time.Duration, e.g. `1m30s`."""
    for unit, size in (("ns", 1_000), ("µs", 1_000_000), ("ms", 1_000_000_000)):
        if nanoseconds < size:
            return f"{nanoseconds / (size // 1_000):g}{unit}"
    minutes, seconds = divmod(nanoseconds, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return f"{text}{seconds / 1e9:g}s"


class _Output:
    """A client that says nothing and keeps the beginning of what it is told."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._cut = False

    def text(self) -> str:
        """What was kept, with an ellipsis if there was more."""
        return self._kept.decode(errors="replace") + ("..." if self._cut else "")

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def write(self, data: bytes) -> None:
        room = MAX_OUTPUT - len(self._kept)
        self._kept += data[:room]
        self._cut = self._cut or len(data) > room

    async def write_eof(self) -> None:
        pass

    async def close(self) -> None:
        pass
