"""Start a container: the heart of the engine.

The path is Docker's: ContainerStart checks, containerStart takes the container's lock and brings together
the root file system, the network, the OCI specification and the runtime. Steps that do not depend on each
other run beside each other, and every step puts its undo on a stack as it succeeds: a failed start unwinds
in reverse and leaves nothing but its error.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from longshore.containers.container import Container
from longshore.engine.checkpoints import checkpoint_path
from longshore.engine.cleanup import mount_rootfs, release_rootfs
from longshore.engine.engine import Engine
from longshore.engine.health import init_health_monitor
from longshore.engine.logging_driver import keep_output, open_log
from longshore.engine.mounts import release_mounts, setup_mounts
from longshore.engine.networking import (
    connect_networks,
    initialize_networking,
    network_of_user_namespace,
    prepare_network_files,
    release_network,
)
from longshore.engine.restart_policy import cancel_restart
from longshore.engine.spec import build_spec, runtime_options
from longshore.engine.verify import verify_container_settings
from longshore.errors import (
    Conflict,
    EngineError,
    InvalidParameter,
    NotModified,
    System,
)
from longshore.runtime.task import Stdio
from longshore.tracing import span

EXIT_FAILED = 128
"""The start failed and nobody can say more."""
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127

log = logging.getLogger(__name__)


async def container_start(engine: Engine, name: str, checkpoint: str = "", checkpoint_dir: str = "") -> None:
    """POST /containers/{id}/start.

    Raises NotFound, NotModified if it runs, Conflict if it is paused or being removed, InvalidParameter if
    its settings do not suit this host or its command cannot be run, System if something below failed.
    """
    if checkpoint and not engine.config.experimental:
        raise InvalidParameter("checkpoint is only supported in experimental mode")
    container = engine.containers.get(name)
    check_startable(container)
    # Settings were verified when the container was made; the host may have changed since.
    verify_container_settings(engine, container.host_config, None, update=False)
    # A task of its own: a request that is cancelled must not break the start off halfway.
    work = asyncio.create_task(_start_locked(engine, container, checkpoint, checkpoint_dir))
    engine.background.add(work)
    work.add_done_callback(engine.background.discard)
    await asyncio.shield(work)


async def _start_locked(engine: Engine, container: Container, checkpoint: str, checkpoint_dir: str) -> None:
    async with container.lock:
        check_startable(container)
        await start_container(engine, container, checkpoint=checkpoint, checkpoint_dir=checkpoint_dir)


def check_startable(container: Container) -> None:
    """Raises Conflict or NotModified if the container's state does not allow a start."""
    if container.state.Paused:
        raise Conflict("cannot start a paused container, try unpause instead")
    if container.state.Running:  # Also while it waits for its restart policy to start it again.
        raise NotModified(f"container {container.id} is already running")
    if container.state.RemovalInProgress or container.state.Dead or container.removed:
        raise Conflict("container is marked for removal and cannot be started")


async def start_container(
    engine: Engine,
    container: Container,
    *,
    checkpoint: str = "",
    checkpoint_dir: str = "",
    reset_restart_manager: bool = True,
) -> None:
    """Start under the container's lock, which the caller holds; on failure undo, record and tell.

    `reset_restart_manager`: somebody asked for this start, so restarts are counted anew.
    """
    if reset_restart_manager:
        cancel_restart(container)
        container.restart_delay = 0.0
        container.record.RestartCount = 0
        container.record.HasBeenManuallyStopped = False
    container.stop_requested = False
    if container.task_deletion is not None:
        await asyncio.shield(container.task_deletion)
        container.task_deletion = None
    with engine.traces.record("start", container.id):
        try:
            async with AsyncExitStack() as undo:
                pid = await _start_steps(engine, container, undo, checkpoint, checkpoint_dir)
                undo.pop_all()
        except BaseException as exc:
            await asyncio.shield(_start_failed(engine, container, exc))
            if isinstance(exc, EngineError) or not isinstance(exc, Exception):
                raise
            raise System(_words(exc)) from exc
    container.set_running(pid)
    init_health_monitor(engine, container)
    engine.log_container_event(container, "start")
    engine.spawn(engine.containers.save(container), f"record of {container.id[:12]}")


async def _start_steps(
    engine: Engine, container: Container, undo: AsyncExitStack, checkpoint: str, checkpoint_dir: str
) -> int:
    runtime = runtime_options(engine, container)
    restored_from = checkpoint_path(container, checkpoint, checkpoint_dir)
    rootfs, mounts, network = await beside(
        _mount(engine, container, undo),
        _setup_mounts(engine, container, undo),
        _initialize_networking(engine, container, undo),
    )
    with span("spec"):
        spec = await build_spec(engine, container, rootfs, mounts, network)
    streams = engine.streams_of(container)
    with span("log driver"):
        driver = await open_log(engine, container)

    attached = False

    def attach(stdio: Stdio) -> None:
        nonlocal attached
        attached = True
        streams.start(stdio.stdin, stdio.stdout, stdio.stderr, driver, keep_output(engine, container))

    late = network_of_user_namespace(engine, container)
    connected = asyncio.create_task(
        _note_start(engine, container) if late else _connect_networks(engine, container)
    )
    undo.push_async_callback(_settled, connected)
    streams.on_stdin_closed = lambda: engine.runtime.close_stdin(container.id)
    try:
        with span("runtime create"):
            pid = await engine.runtime.create(
                container.id,
                spec,
                stdin=container.config.OpenStdin,
                terminal=container.config.Tty,
                runtime=runtime,
                attach=attach,
                checkpoint=restored_from,
            )
    except BaseException as exc:
        streams.stop()
        if driver is not None and not attached:
            driver.close()
        if isinstance(exc, EngineError):
            raise translate_start_error(container.record.Path, exc) from exc
        raise
    undo.push_async_callback(_delete_task, engine, container)
    await connected
    if late:
        if not pid:
            raise System("a container whose user namespace owns its network cannot start from a checkpoint")
        with span("network"):
            await initialize_networking(engine, container, namespace_of=pid)
        await _connect_networks(engine, container)
    try:
        with span("runtime start"):
            return await engine.runtime.start(container.id)
    except EngineError as exc:
        raise translate_start_error(container.record.Path, exc) from exc


async def _mount(engine: Engine, container: Container, undo: AsyncExitStack) -> Path:
    with span("mount rootfs"):
        rootfs = await mount_rootfs(engine, container)
        undo.push_async_callback(release_rootfs, engine, container)
        return rootfs


async def _setup_mounts(engine: Engine, container: Container, undo: AsyncExitStack) -> Any:
    with span("volumes"):
        undo.push_async_callback(release_mounts, engine, container)
        return await setup_mounts(engine, container)


async def _initialize_networking(engine: Engine, container: Container, undo: AsyncExitStack) -> Any:
    with span("network"):
        undo.push_async_callback(release_network, engine, container)
        if network_of_user_namespace(engine, container):
            prepare_network_files(engine, container)
            return None
        return await initialize_networking(engine, container)


async def _connect_networks(engine: Engine, container: Container) -> None:
    with span("connect networks"):
        await connect_networks(engine, container)
    await _note_start(engine, container)


async def _note_start(engine: Engine, container: Container) -> None:
    """Beside the runtime's work, but done before the process runs: whoever takes it back needs the record.

    A crash from here on finds the network it has to clean up, and after a power cut, that the container may
    have run.
    """
    container.state.Starting = True
    await engine.containers.save(container)


async def _settled(task: asyncio.Task[None]) -> None:
    """Wait for the end of a task whose failure is told of by others."""
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


async def _delete_task(engine: Engine, container: Container) -> None:
    await engine.runtime.delete(container.id)
    streams = engine.streams.get(container.id)
    if streams is not None:
        streams.stop()


async def _start_failed(engine: Engine, container: Container, error: BaseException) -> None:
    """Record why, with an exit code; a container that was to remove itself goes away."""
    code = getattr(error, "exit_code", 0) or EXIT_FAILED
    container.set_start_failed(code, _words(error))
    await engine.containers.save(container)
    if container.host_config.AutoRemove:
        from longshore.engine.exit import auto_remove

        engine.spawn(auto_remove(engine, container), f"removal of {container.id[:12]}")


def _words(error: BaseException) -> str:
    """What is told of an error: of the kernel's in its own words and with the path."""
    if isinstance(error, OSError) and error.strerror:
        return ": ".join([*([os.fspath(error.filename)] if error.filename else []), error.strerror.lower()])
    return str(error) or type(error).__name__


class StartError(InvalidParameter):
    """The container's command cannot be run as it is; carries the exit code that shells use for it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def translate_start_error(program: str, error: EngineError) -> EngineError:
    """What the runtime said, with Docker's exit code and hint where the user's settings are the cause."""
    message = error.message
    text = message.lower()
    if "not a directory" in text:
        return StartError(
            message + ": Are you trying to mount a directory onto a file (or vice-versa)? "
            "Check if the specified host path exists and is the expected type",
            EXIT_NOT_FOUND,
        )
    if "permission denied" in text or "is a directory" in text:
        return StartError(message, EXIT_NOT_EXECUTABLE)
    missing = (
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    )
    if program.lower() in text and any(sign in text for sign in missing):
        return StartError(message, EXIT_NOT_FOUND)
    return error


async def beside(*steps: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run steps beside each other; wait for all of them even if one fails, so that each can be undone.

    Raises the first failure, in the order given.
    """
    results = await asyncio.gather(*steps, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)
