"""RUN: a container does the work, and what it changed becomes a layer."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from copy import deepcopy
from typing import TYPE_CHECKING

from longshore.build.dockerfile import Heredoc, heredoc
from longshore.build.instructions import Run
from longshore.containers.container import Container
from longshore.engine.builder.output import BuildOutput, Step
from longshore.engine.builder.runmounts import RunMounts
from longshore.engine.create import container_create, new_container_id
from longshore.engine.remove import container_remove
from longshore.engine.start import container_start
from longshore.errors import Conflict, EngineError, InvalidParameter, NotFound, System
from longshore.layers.layer import Layer
from longshore.types.codec import convert, to_plain, valid_text
from longshore.types.container import Config, ContainerCreateRequest, HealthConfig, LogConfig

if TYPE_CHECKING:
    from longshore.engine.builder.stage import StageRun

log = logging.getLogger(__name__)


class CommandFailed(System):
    """The command of a step ended with another code than 0."""

    def __init__(self, command: list[str], code: int) -> None:
        super().__init__(f"The command '{' '.join(command)}' returned a non-zero code: {code}")
        self.command = command
        self.code = code


async def run_command(stage: StageRun, instruction: Run) -> None:
    """Raises CommandFailed, and EngineError for what cannot be run at all."""
    state = stage.state
    network = _network(stage, instruction)
    if instruction.security == "insecure":
        raise InvalidParameter("security.insecure is not allowed")
    async with AsyncExitStack() as held:
        words, script = _command_words(instruction)
        command = valid_text(state.command_line(words, shell=instruction.shell))
        mounts = RunMounts(stage, instruction, script)
        await mounts.prepare()
        held.push_async_callback(mounts.release)
        env = list(state.config.Env or [])
        arguments = state.arguments.beside(env)
        known = [*mounts.marks(), *command]
        if arguments or len(known) > len(command):
            counting = state.arguments.counting(arguments)
            known = [f"|{len(counting)}", *counting, *known]
        step = stage.step_config(known)
        step.Entrypoint = None  # An entrypoint of the image is not what runs.
        if await stage.use_cache(step):
            return
        await mounts.ask_client()
        further = arguments | mounts.environment
        config = _container_config(stage.config(), command, [f"{k}={v}" for k, v in further.items()])
        container = await _create(stage, config, mounts, network, held)
        container.secret_environment = mounts.secret_environment
        await mounts.note_missing(container)
        await _run(stage, container, command)
        await mounts.remove_stubs(container)
        layer = await stage.make_layer(lambda _: _layer(stage, container))
        await stage.commit(step, layer, container.id)


def _command_words(instruction: Run) -> tuple[list[str], Heredoc | None]:
    """The command's words, and a here-document that is a program of its own."""
    if not instruction.files:
        return instruction.command, None
    text = instruction.command[0]
    if heredoc(text) is None:
        # The shell reads the here-documents itself.
        return [text + "".join(f"\n{each.content}{each.name}" for each in instruction.files)], None
    first = instruction.files[0]
    if first.content.startswith("#!"):
        return [f"/dev/pipes/{first.name}"], first
    return [first.text], None


def _network(stage: StageRun, instruction: Run) -> str:
    options = stage.build.options
    asked = options.host_config.NetworkMode
    if instruction.network == "none":
        return "none"
    if instruction.network == "host" and asked != "host" and "network.host" not in options.entitlements:
        raise InvalidParameter("network.host is not allowed")
    return instruction.network if instruction.network == "host" else asked


def _container_config(config: Config, command: list[str], arguments: list[str]) -> Config:
    config.Cmd = command
    config.Entrypoint = [""]
    config.Env = [*(config.Env or []), *arguments]
    config.Healthcheck = HealthConfig(Test=["NONE"])
    config.OnBuild = None
    config.AttachStdout = config.AttachStderr = True
    config.Tty = config.OpenStdin = config.StdinOnce = config.AttachStdin = False
    return config


async def _create(
    stage: StageRun, config: Config, mounts: RunMounts, network: str, held: AsyncExitStack
) -> Container:
    """The container of the step; removed in the end, unless it failed and its user may want to look."""
    engine, options = stage.engine, stage.build.options
    if not config.Image:
        config.Image = await asyncio.to_thread(stage.empty_image)
    host_config = deepcopy(options.host_config)
    host_config.NetworkMode = network
    host_config.LogConfig = LogConfig(Type="none")
    host_config.Mounts = mounts.of_container or None
    request = convert(to_plain(config), ContainerCreateRequest)
    request.HostConfig = host_config
    id = new_container_id()
    stage.build.space.note_container(
        id
    )  # Before there is one: the daemon may be killed as soon as it exists.
    created = asyncio.create_task(container_create(engine, "", request, id=id))
    try:
        await asyncio.shield(created)
    except asyncio.CancelledError:
        await asyncio.wait([created])
        await _remove(stage, id)
        raise
    except Exception:
        stage.build.space.forget_container(id)
        raise

    async def end(kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None and not isinstance(error, Exception):
            await asyncio.shield(_remove(stage, id))  # It may still run, and use its mounts.
        elif options.force_remove or (options.remove and error is None):
            stage.build.beside(_remove(stage, id))
        else:
            stage.build.space.forget_container(id)

    held.push_async_exit(end)
    stage.running_in(id)
    return engine.containers.get(id)


async def _remove(stage: StageRun, id: str) -> None:
    try:
        with suppress(NotFound, Conflict):  # Its user was faster.
            await container_remove(stage.engine, id, force=True, volumes=True)
        stage.build.space.forget_container(id)
    except (OSError, EngineError) as exc:
        log.error("container %s of a build could not be removed: %s", id[:12], exc)


async def _run(stage: StageRun, container: Container, command: list[str]) -> None:
    """Run the container to its end, showing its output."""
    streams = stage.engine.streams_of(container)
    shown = _Shown(stage.build.output, stage.step)
    ended = container.wait("next-exit")
    output = asyncio.create_task(streams.attach(shown, stdin=False, stdout=True, stderr=True, tty=False))
    try:
        await asyncio.sleep(0)  # The output is subscribed to before anything can be said.
        stage.engine.log_container_event(container, "attach")
        await container_start(stage.engine, container.id)
        code, _ = await ended
        await output
    finally:
        output.cancel()
        await asyncio.gather(output, return_exceptions=True)
    if code:
        raise CommandFailed(command, code)


def _layer(stage: StageRun, container: Container) -> Layer | None:
    layers = stage.engine.layers
    rw_layer = layers.get_rw_layer(container.id)
    options = stage.build.options
    if options.remove or options.force_remove:
        return layers.commit(rw_layer)
    # The container stays, and keeps what it wrote.
    if not rw_layer.changes():
        return None
    with rw_layer.tar_stream() as changes:
        return layers.register(changes, rw_layer.parent)


class _Shown:
    """Stands where an attached client would, and hands a container's output on."""

    def __init__(self, output: BuildOutput, step: Step) -> None:
        self._output = output
        self._step = step

    async def read(self) -> bytes:
        """A client that never says anything."""
        await asyncio.Event().wait()
        return b""

    async def write(self, data: bytes) -> None:
        """One frame of the multiplexed stream: eight bytes of header, the text."""
        await self._output.room(self._step.stage)
        self._step.wrote(data[0], data[8:])

    async def write_eof(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""
