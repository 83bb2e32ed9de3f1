"""Run further processes in a container.

An exec is made, then started once, attached or detached, and remembered for a while after its end so that
its exit code can be asked for. It lives in memory only: a daemon that comes back does not know the execs of
the one before, whose processes run on in their containers until they end.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from longshore.containers.container import Container
from longshore.engine.exec_process import build_process
from longshore.errors import Conflict, EngineError, InvalidParameter, NotFound, System
from longshore.logs.detach import DEFAULT_DETACH_KEYS, parse_detach_keys
from longshore.logs.streams import ContainerStreams
from longshore.oci.exec import ExecInput
from longshore.types.exec import ExecCreateRequest, ExecInspect, ExecProcessConfig

if TYPE_CHECKING:
    from longshore.engine.engine import Engine
    from longshore.runtime.task import Stdio, TaskEvent
    from longshore.types.stream import RawConnection

EXIT_NOT_STARTED = 126
"""Exit code of an exec whose start failed for a reason that has no code of its own; Docker's."""
EXIT_KILLED = 137
REMEMBERED = 300.0
"""Seconds that an ended exec can still be inspected."""
OUTPUT_GRACE = 2.0
"""Seconds to wait for the end of the output once the process ended: a child of it may hold the pipe open."""
START_WAIT = 10.0
"""Seconds that a resize waits for the process to start."""


@dataclass(eq=False)
class Exec:
    """One further process of a container."""

    id: str
    """64 hexadecimal digits."""
    container: Container
    process: ExecInput
    streams: ContainerStreams
    open_stdin: bool = False
    open_stdout: bool = False
    open_stderr: bool = False
    detach_keys: bytes = b""
    """As asked for; empty is the default."""
    pid: int = 0
    running: bool = False
    exit_code: int | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """The start succeeded or failed."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """The process ended and its output was read, or its start failed."""
    forgetting: asyncio.TimerHandle | None = None
    """Will forget it once it has been remembered long enough."""

    @property
    def command(self) -> str:
        """The words, as Docker's events show them."""
        program, *arguments = self.process.args
        return f"{program} {' '.join(arguments)}"


async def container_exec_create(engine: Engine, name: str, options: ExecCreateRequest) -> str:
    """POST /containers/{id}/exec: the id of an exec that can be started.

    Raises NotFound, Conflict for a container that does not run or is paused, InvalidParameter.
    """
    if not options.Cmd:
        raise InvalidParameter("No exec command specified")
    container = engine.containers.get(name)
    check_active(container, name)
    keys = b""
    if options.DetachKeys:
        try:
            keys = parse_detach_keys(options.DetachKeys)
        except InvalidParameter:
            raise InvalidParameter(f"Invalid escape keys ({options.DetachKeys}) provided") from None
    process = ExecInput(
        args=list(options.Cmd),
        tty=options.Tty,
        user=options.User,
        env=options.Env or [],
        working_dir=options.WorkingDir,
        privileged=options.Privileged,
        console_size=console_size(options.ConsoleSize),
    )
    made = register_exec(engine, container, process)
    made.open_stdin, made.open_stdout = options.AttachStdin, options.AttachStdout
    made.open_stderr, made.detach_keys = options.AttachStderr, keys
    return made.id


def register_exec(engine: Engine, container: Container, process: ExecInput) -> Exec:
    """An exec under a new id, made known with its event."""
    streams = ContainerStreams(engine.pump, tty=process.tty)
    made = Exec(secrets.token_hex(32), container, process, streams)
    engine.execs[made.id] = made
    engine.log_container_event(container, f"exec_create: {made.command}", execID=made.id)
    return made


def find_exec(engine: Engine, id: str) -> Exec:
    """The exec, if its container is there. Raises NotFound."""
    found = engine.execs.get(id)
    if found is None or engine.containers.find(found.container.id) is not found.container:
        raise NotFound(f"No such exec instance: {id}")
    return found


def find_active_exec(engine: Engine, id: str) -> Exec:
    """The exec, if its container runs. Raises NotFound, Conflict."""
    found = find_exec(engine, id)
    check_active(found.container, found.container.id)
    return found


def check_active(container: Container, name: str) -> None:
    """Raises Conflict, with what the client calls the container, unless it can take a new process now."""
    state = container.state
    if state.Restarting:
        raise Conflict(f"Container {name} is restarting, wait until the container is running")
    if not state.Running:
        raise Conflict(f"container {container.id} is not running")
    if state.Paused:
        raise Conflict(f"Container {name} is paused, unpause the container before exec")


def console_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    """Height and width, as the API gives them. Raises InvalidParameter."""
    if size is None:
        return None
    if len(size) != 2 or not all(0 <= number < 1 << 32 for number in size):
        raise InvalidParameter("invalid console size: height and width are expected")
    return size[0], size[1]


async def container_exec_start(
    engine: Engine,
    id: str,
    client: RawConnection | None = None,
    *,
    raw: bool = False,
    size: tuple[int, int] | None = None,
) -> None:
    """POST /exec/{id}/start: without a client until the process has started, with one until it is served.

    `raw` leaves out the framing of stdout and stderr; `size` is the terminal's, height first. `client` is
    closed unless this raises NotFound, Conflict, InvalidParameter or System, all of which mean that the
    process did not start.
    """
    started = find_active_exec(engine, id)
    if started.exit_code is not None:
        raise Conflict(f"Error: Exec command {id} has already run")
    if started.running:
        raise Conflict(f"Error: Exec command {id} is already running")
    started.running = True
    engine.log_container_event(started.container, f"exec_start: {started.command}", execID=id)
    serving = None if client is None else await _attach(started, client, raw)
    try:
        await _start_process(engine, started, attached=client is not None, size=size)
    except BaseException as exc:
        _start_failed(started, exc)
        if serving is not None:
            await asyncio.wait([serving])
        _forget_later(engine, started)
        if isinstance(exc, EngineError) or not isinstance(exc, Exception):
            raise
        raise System(str(exc)) from exc
    finally:
        started.started.set()
    if serving is None or client is None:
        return
    ending = await serving
    if ending == "detached":
        engine.log_container_event(started.container, "exec_detach", execID=id)
    elif ending == "container-exit":
        # Clients ask for the exit code as soon as the stream ends: let there be one.
        await started.ended.wait()
    await client.close()


async def _attach(started: Exec, client: RawConnection, raw: bool) -> asyncio.Task[str]:
    """Serve the client beside the start, so that not a byte of output comes before it listens."""
    serving: asyncio.Task[str] = asyncio.create_task(
        started.streams.attach(
            _KeptOpen(client),
            stdin=started.open_stdin,
            stdout=started.open_stdout,
            stderr=started.open_stderr,
            tty=started.process.tty,
            detach_keys=started.detach_keys or DEFAULT_DETACH_KEYS,
            multiplex=not raw,
            stdin_once=True,
        )
    )
    await asyncio.sleep(0)
    return serving


async def _start_process(
    engine: Engine, started: Exec, *, attached: bool, size: tuple[int, int] | None
) -> None:
    container, runtime, streams = started.container, engine.runtime, started.streams
    process = await build_process(engine, container, started.process, size)
    streams.on_stdin_closed = lambda: runtime.close_stdin(container.id, started.id)

    def attach(stdio: Stdio) -> None:
        streams.start(stdio.stdin, stdio.stdout, stdio.stderr, None)

    stdin = attached and started.open_stdin
    await runtime.exec_create(
        container.id, started.id, process, stdin=stdin, terminal=started.process.tty, attach=attach
    )
    started.pid = await runtime.exec_start(container.id, started.id)


def _start_failed(started: Exec, error: BaseException) -> None:
    from longshore.engine.start import translate_start_error

    if isinstance(error, EngineError):
        translated = translate_start_error(started.process.args[0], error)
        started.exit_code = getattr(translated, "exit_code", None)
    started.running = False
    if started.exit_code is None:
        started.exit_code = EXIT_NOT_STARTED
    started.streams.stop()
    started.ended.set()


def on_exec_exit(engine: Engine, event: TaskEvent) -> None:
    """The runtime told of the end of a process that is not the container's first."""
    found = engine.execs.get(event.exec_id)
    if found is not None:
        engine.spawn(_ended(engine, found, event.exit_code), f"exit of exec {event.exec_id[:12]}")


def end_execs(engine: Engine, container: Container) -> None:
    """The container's first process has ended, and with it every other: nobody will wait for them."""
    for each in live_execs(engine, container):
        if each.running:
            engine.spawn(_ended(engine, each, EXIT_KILLED), f"exit of exec {each.id[:12]}")
        else:
            del engine.execs[each.id]


def forget_execs(engine: Engine, container: Container) -> None:
    """The container is gone, and nobody can ask for its execs any more."""
    for each in [each for each in engine.execs.values() if each.container is container]:
        del engine.execs[each.id]
        if each.forgetting is not None:
            each.forgetting.cancel()


def live_execs(engine: Engine, container: Container) -> list[Exec]:
    """The container's execs that have not ended, those not yet started included."""
    return [each for each in engine.execs.values() if each.container is container and each.exit_code is None]


async def _ended(engine: Engine, ended: Exec, exit_code: int) -> None:
    await ended.started.wait()
    if ended.exit_code is not None:
        return
    ended.exit_code, ended.running = exit_code, False
    while not await ended.streams.drained(OUTPUT_GRACE):
        # A client that is behind gets all of it; a process left behind does not hold the exec up.
        if not any(client.is_full() for client in ended.streams.audience()):
            ended.streams.stop()
            break
    engine.log_container_event(ended.container, "exec_die", execID=ended.id, exitCode=str(exit_code))
    ended.ended.set()
    _forget_later(engine, ended)
    with contextlib.suppress(NotFound):  # it went with the container
        await engine.runtime.exec_delete(ended.container.id, ended.id)


def _forget_later(engine: Engine, ended: Exec) -> None:
    loop = asyncio.get_running_loop()
    ended.forgetting = loop.call_later(REMEMBERED, engine.execs.pop, ended.id, None)


async def container_exec_resize(engine: Engine, id: str, height: int, width: int) -> None:
    """POST /exec/{id}/resize, in characters. Raises NotFound, Conflict, InvalidParameter, System."""
    found = find_active_exec(engine, id)
    try:
        await asyncio.wait_for(found.started.wait(), START_WAIT)
    except TimeoutError:
        raise System("timeout waiting for exec session ready") from None
    if not found.pid:
        raise InvalidParameter("exec process is not started")
    await engine.runtime.resize(found.container.id, width, height, found.id)


def container_exec_inspect(engine: Engine, id: str) -> ExecInspect:
    """GET /exec/{id}/json. Raises NotFound."""
    found = find_exec(engine, id)
    process = found.process
    return ExecInspect(
        ID=found.id,
        Running=found.running,
        ExitCode=found.exit_code,
        ProcessConfig=ExecProcessConfig(
            tty=process.tty,
            entrypoint=process.args[0],
            arguments=list(process.args[1:]),
            privileged=process.privileged,
            user=process.user or found.container.config.User,
        ),
        OpenStdin=found.open_stdin,
        OpenStderr=found.open_stderr,
        OpenStdout=found.open_stdout,
        ContainerID=found.container.id,
        DetachKeys=base64.b64encode(found.detach_keys).decode(),
        Pid=found.pid,
    )


class _KeptOpen:
    """A client's connection that whoever serves it cannot close: there may be an error left to tell."""

    def __init__(self, client: RawConnection) -> None:
        self.read = client.read
        self.write = client.write
        self.write_eof = client.write_eof

    async def close(self) -> None:
        pass
