"""Read a container's log back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.errors import NotImplementedHere
from longshore.logs.driver import LogDriver
from longshore.logs.info import log_path
from longshore.logs.reader import LogSource, ReadOptions, check_readable, read_logs
from longshore.types.numbers import decimal
from longshore.types.timestamp import parse_unix


@dataclass(frozen=True, slots=True)
class LogsOptions:
    """What a client wants, as its query says it. Times in seconds since the epoch, with a fraction."""

    stdout: bool = True
    stderr: bool = True
    since: str = ""
    until: str = ""
    tail: str = ""
    follow: bool = False
    timestamps: bool = False
    details: bool = False


@dataclass(frozen=True, slots=True)
class LogsReply:
    """The log; in frames of the multiplexed stream unless the container has a terminal."""

    tty: bool
    frames: AsyncIterator[bytes]


async def container_logs(engine: Engine, name: str, options: LogsOptions) -> LogsReply:
    """GET /containers/{id}/logs.

    Raises NotFound, InvalidParameter for a bad time, NotImplementedHere if the driver cannot be read.
    """
    container = engine.containers.get(name)
    if container.host_config.LogConfig.Type == "none":
        raise NotImplementedHere("configured logging driver does not support reading")
    read = ReadOptions(
        stdout=options.stdout,
        stderr=options.stderr,
        since=_moment(options.since),
        until=_moment(options.until),
        tail=_tail(options.tail),
        follow=options.follow and container.state.Running,
        timestamps=options.timestamps,
        details=options.details,
    )
    source = log_source(engine, container)
    check_readable(source)
    return LogsReply(container.config.Tty, read_logs(source, read, multiplex=not container.config.Tty))


def log_source(engine: Engine, container: Container) -> LogDriver | LogSource:
    """The log being written, or the one that the last run left."""
    live = engine.logs.get(container.id)
    if live is not None and container.state.Running:
        return live
    driver = container.host_config.LogConfig.Type
    return LogSource(
        driver, log_path(driver, container.root, container.id, container.host_config.LogConfig.Config)
    )


def _moment(text: str) -> int | None:
    return None if text in ("", "0") else parse_unix(text)


def _tail(text: str) -> int:
    """Docker takes anything that is not a number for all of it."""
    return -1 if (records := decimal(text)) is None else records
