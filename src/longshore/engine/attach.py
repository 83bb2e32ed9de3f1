"""Attach a client to a container's streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.logs import log_source
from longshore.errors import Conflict
from longshore.logs.detach import parse_detach_keys
from longshore.logs.reader import ReadOptions, read_logs
from longshore.types.stream import RawConnection


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """Which streams; `logs` replays what was written so far, `stream` stays for what comes."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    logs: bool = False
    stream: bool = False
    detach_keys: str = ""


async def container_attach(engine: Engine, name: str, options: AttachOptions) -> Attachment:
    """POST /containers/{id}/attach, up to the point where the connection is taken over.

    Raises NotFound, InvalidParameter for bad detach keys, Conflict for a container that is paused or
    restarting.
    """
    keys = parse_detach_keys(options.detach_keys) if options.detach_keys else None
    container = engine.containers.get(name)
    if container.state.Paused:
        raise Conflict(f"container {name} is paused, unpause the container before attach")
    if container.state.Restarting:
        raise Conflict(f"container {name} is restarting, wait until the container is running")
    return Attachment(engine, container, options, keys)


class Attachment:
    """A client that may attach; `run` serves it until either side ends."""

    def __init__(
        self, engine: Engine, container: Container, options: AttachOptions, keys: bytes | None
    ) -> None:
        self.tty = container.config.Tty
        self._engine = engine
        self._container = container
        self._options = options
        self._keys = keys

    async def run(self, conn: RawConnection) -> None:
        """Copy both ways. Closes `conn`."""
        engine, container, options = self._engine, self._container, self._options
        engine.log_container_event(container, "attach")
        if not options.stream:
            async for chunk in self._replay():
                await conn.write(chunk)
            await conn.close()
            return
        ended = await engine.streams_of(container).attach(
            conn,
            stdin=options.stdin and container.config.OpenStdin,
            stdout=options.stdout,
            stderr=options.stderr,
            tty=self.tty,
            detach_keys=self._keys,
            stdin_once=container.config.StdinOnce,
            replay=self._replay() if options.logs else None,
        )
        if ended == "detached":
            engine.log_container_event(container, "detach")

    def _replay(self) -> AsyncIterator[bytes]:
        if not self._options.logs:
            return _nothing()
        options = ReadOptions(stdout=self._options.stdout, stderr=self._options.stderr)
        return read_logs(log_source(self._engine, self._container), options, multiplex=not self.tty)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
