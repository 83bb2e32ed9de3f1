"""Build an image: read the Dockerfile, run the stages it takes, name what comes of them."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from longshore.build.arguments import BuildArguments, unused
from longshore.build.context import DEFAULT_DOCKERFILE, unpack_context
from longshore.build.dockerfile import parse
from longshore.build.instructions import Arg, Instruction
from longshore.build.shell import expand_word
from longshore.build.stages import (
    Program,
    Stage,
    add_labels,
    context_path,
    context_paths,
    needed_stages,
    read_program,
    target_stage,
)
from longshore.engine.bridges import BodyReader, evaluated, to_its_end
from longshore.engine.builder.commit import StepCache
from longshore.engine.builder.options import BuildOptions
from longshore.engine.builder.output import BuildOutput, Message
from longshore.engine.builder.stage import StageRun
from longshore.engine.builder.workspace import Workspace, workspace
from longshore.engine.engine import Engine
from longshore.errors import EngineError, InvalidParameter, NotFound, System
from longshore.images.reference import Reference
from longshore.images.reference import parse as parse_reference
from longshore.threads import in_own_thread, settled

if TYPE_CHECKING:
    from longshore.buildkit.sessions import Session
    from longshore.engine.builder.namedcontexts import NamedContexts

_MOST_HELD_BACK = 10_000
"""Messages of a quiet build that are kept for the case that it fails."""

Say = Callable[[Message], None]
LoadContext = Callable[[tuple[str, ...] | None], Coroutine[Any, Any, Path]]


async def image_build(
    engine: Engine, options: BuildOptions, body: AsyncIterator[bytes]
) -> AsyncIterator[Message]:
    """POST /build: progress messages. When nobody takes them any more, the build ends and leaves nothing.

    Raises InvalidParameter for a context, a Dockerfile or a name that cannot be right, before any message;
    what fails later is the last message.
    """
    tags = [_tag(name) for name in options.tags]
    held = ExitStack()
    try:
        space = await to_its_end(lambda: held.enter_context(workspace(engine)))
        content = await fetch_context(engine, options, body, space)
        name = options.dockerfile or DEFAULT_DOCKERFILE
        program = await evaluated(len(content), lambda: read_program(parse(content, name)))
        build = Build(engine, options, space, program, list(dict.fromkeys(tags)))
    except BaseException:
        await asyncio.shield(asyncio.to_thread(held.close))
        raise
    return build.messages(held)


class Build:
    """One build under way: what all of its stages share."""

    def __init__(
        self,
        engine: Engine,
        options: BuildOptions,
        space: Workspace,
        program: Program,
        tags: list[Reference],
        output: BuildOutput | None = None,
        load_context: LoadContext | None = None,
        named: NamedContexts | None = None,
    ) -> None:
        """`load_context` fetches the context, or paths of it; None: it is in the workspace."""
        self.engine = engine
        self.options = options
        self.space = space
        self.program = program
        self.output = output or BuildOutput()
        self.arguments = BuildArguments(options.arguments, platform_arguments(options.platform))
        self.steps = 0
        self.image = ""
        """What came of it, in the end."""
        self.failed_line = 0
        """Where in the Dockerfile it failed first; 0 if it did not, or not at a place there."""
        self._load_context = load_context
        self._named = named
        if named is not None:
            named.apply(program)
        self._contexts: dict[tuple[str, ...] | None, asyncio.Task[Path]] = {}
        self._context_paths: tuple[str, ...] | None = None
        self._beside: list[asyncio.Task[None]] = []
        self._tags = tags
        self._target = target_stage(program.stages, options.target)
        self._first: dict[int, int] = {}
        self._bases: dict[int, str] = {}
        self._runs: dict[int, asyncio.Task[str]] = {}
        self._stages: dict[int, StageRun] = {}
        self._pulls: dict[tuple[str, str], asyncio.Task[str]] = {}
        """Base images by name and platform: each is looked for once, so that all stages see the same."""
        self.use_caches()
        add_labels(self._target, options.labels)

    async def messages(self, held: ExitStack) -> AsyncIterator[Message]:
        """Run the build, and yield what it says; `held` is closed when all is over."""
        work = asyncio.create_task(self._work(), name="build")
        held_back: deque[Message] = deque(maxlen=_MOST_HELD_BACK)
        try:
            async for message in self.output.messages():
                if not self.options.quiet:
                    yield message
                    continue
                if "error" in message:  # What led to it is of interest after all.
                    for each in held_back:
                        yield each
                    yield message
                held_back.append(message)
            await work
            if self.options.quiet and self.image:
                yield {"stream": f"{self.image}\n"}
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await work
            # Nobody needs to wait for files to go.
            self.engine.spawn(asyncio.to_thread(held.close), "removal of a build's files")

    async def result(self, stage: Stage) -> str:
        """The image of a stage, which is waited for. Raises EngineError if it came to nothing."""
        if stage.index not in self._runs:
            # Only a trigger of a base image can name a stage that nothing else needs.
            self._first[stage.index] = self.steps + 1
            self.steps += 1 + len(stage.instructions)
            self._start(stage)
        image = await asyncio.shield(self._runs[stage.index])
        if not image:
            raise InvalidParameter("the stage has no image: it is empty")
        return image

    def arguments_of(self, stage: Stage) -> BuildArguments:
        """The build arguments of a stage that was begun."""
        return self._stages[stage.index].state.arguments

    def note_base(self, stage: Stage, image: str) -> None:
        """What a stage begins with; "" for nothing."""
        self._bases[stage.index] = image

    async def base_image(self, name: str, platform: str, say: Say) -> str:
        """The id of the image that a FROM or a COPY names, pulled if need be. Raises NotFound, System."""
        if self._named is not None:
            name = self._named.image(name)
        key = (name, platform)
        if key not in self._pulls:
            from longshore.engine.builder.base import find_base

            self._pulls[key] = asyncio.create_task(find_base(self, name, platform, say))
        return await asyncio.shield(self._pulls[key])

    def use_caches(self) -> None:
        """Look for steps in what there is by now of the images that were named for that."""
        enabled = not self.options.no_cache
        self.cache = StepCache(self.engine, self._cache_sources(), enabled=enabled)

    async def context(self, wanted: Iterable[str]) -> Path:
        """The build context, or as much of it as holds the paths `wanted`.

        It is fetched when the first step takes something from it: what all steps take, or, if that cannot be
        told, all. Raises InvalidParameter, System, Unavailable.
        """
        if self._load_context is None:
            return self.space.context
        known = self._context_paths
        paths = known if known is not None and all(context_path(each) in known for each in wanted) else None
        if paths not in self._contexts:
            self._contexts[paths] = asyncio.create_task(self._load_context(paths), name="build context")
        return await asyncio.shield(self._contexts[paths])

    async def named_root(self, name: str) -> Path | None:
        """The directory that the client calls `name`, if it offers one of that name."""
        return await self._named.root(name) if self._named is not None and name else None

    async def session(self) -> Session | None:
        """The client's session, waited for if it is still to connect; None if there is to be none.

        Raises NotFound if it does not come.
        """
        if not self.options.session:
            return None
        return await self.engine.sessions.get(self.options.session)

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something while the build goes on, at the end of which it is waited for."""
        self._beside.append(self.engine.spawn(work, "part of a build"))

    async def solve(self) -> str:
        """Run the build; the image that comes of it. When this returns or raises, nothing of it goes on."""
        try:
            return await self._build()
        finally:
            context: list[asyncio.Task[Any]] = [*self._contexts.values()]
            if self._named is not None:
                context += self._named.tasks()
            tasks: list[asyncio.Task[Any]] = [*self._runs.values(), *self._pulls.values(), *context]
            for task in tasks:
                task.cancel()
            try:
                await settled(tasks)
            finally:
                await settled(self._beside)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # Of several failures, the first is told.

    async def _work(self) -> None:
        try:
            image = await self.solve()
            await asyncio.to_thread(self._name, image)
            self._finish(image)
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            self._show_failure(exc)
        finally:
            self.output.end()

    async def _build(self) -> str:
        if self.program.warnings:
            told = "\n".join(self.program.warnings)
            self.output.warn(told, f"\x1b[91m{told}\n\x1b[0m")
        text = sum(len(each.text) for each in self.program.arguments)
        text += sum(len(stage.begin.text) for stage in self.program.stages)
        await evaluated(text, self._plan)
        for number, instruction in enumerate(self.program.arguments, 1):
            self._tell(f"Step {number}/{self.steps} : {instruction.text}")
            self._tell("\n")
            await evaluated(text + self._outside_size(), lambda: self._outside(instruction))  # noqa: B023
        needs = await evaluated(text + self._outside_size(), self._plan)
        self._context_paths = context_paths(self.program.stages[index] for index in needs)
        for index in needs:
            self._start(self.program.stages[index])
        await self._all_stages()
        image = image_before = self._runs[self._target.index].result()
        if not image:
            raise System("No image was generated. Is your Dockerfile empty?")
        self._warn_of_unused()
        if self.options.squash:
            from longshore.engine.builder.squash import squash_image

            base = self._bases.get(self._target.index, "")
            image = await to_its_end(lambda: squash_image(self.engine, image_before, base))
            self.output.say({"id": "moby.image.id", "aux": {"ID": image}})
        return image

    def _start(self, stage: Stage) -> None:
        self.output.expect(stage.index)
        run = StageRun(self, stage, self._first[stage.index])
        self._stages[stage.index] = run
        self._runs[stage.index] = asyncio.create_task(run.run(), name=f"stage {stage.index}")

    async def _all_stages(self) -> None:
        """Wait for all stages, or until one fails. Raises its failure."""
        runs = list(self._runs.values())
        done, _ = await asyncio.wait(runs, return_when=asyncio.FIRST_EXCEPTION)
        for task in runs:
            if task in done:
                task.result()

    def _plan(self) -> dict[int, set[int]]:
        """Which stages are needed, and the number of each one's first step."""
        variables = self.arguments.for_from()

        def base(stage: Stage) -> str:
            return expand_word(stage.begin.base, variables, self.program.escape)

        needs = needed_stages(self.program.stages, self._target, base)
        number = 1 + len(self.program.arguments)
        for index in needs:
            self._first[index] = number
            number += 1 + len(self.program.stages[index].instructions)
        self.steps = number - 1
        return needs

    def _outside_size(self) -> int:
        return sum(len(value or "") for value in self.arguments.outside.values())

    def _outside(self, instruction: Arg) -> None:
        for name, default in instruction.args:
            variables = self.arguments.for_from()
            escape = self.program.escape
            value = None if default is None else expand_word(default, variables, escape)
            self.arguments.declare_outside(expand_word(name, variables, escape), value)

    def _warn_of_unused(self) -> None:
        every: list[Instruction] = [*self.program.arguments]
        for stage in self.program.stages:
            every += stage.instructions
        declared = {name for each in every if isinstance(each, Arg) for name, _ in each.args}
        if left := unused(self.options.arguments, declared | platform_arguments("").keys()):
            text = f"One or more build-args [{' '.join(left)}] were not consumed"
            self.output.warn(text, f"[Warning] {text}\n")

    def _name(self, image: str) -> None:
        for reference in self._tags:
            self.engine.images.tag(image, reference.name, reference.tagged.tag)

    def _finish(self, image: str) -> None:
        short = image.removeprefix("sha256:")[:12]
        self._tell(f"Successfully built {short}\n")
        for reference in self._tags:
            self._tell(f"Successfully tagged {reference.tagged.familiar}\n")
            labels = self.engine.images.images.get(image).labels
            name = reference.tagged.familiar
            self.engine.events.publish("image", "tag", image, {**labels, "name": name})
        self.image = image

    def _show_failure(self, exc: Exception) -> None:
        if not isinstance(exc, EngineError | OSError):
            import logging

            logging.getLogger(__name__).exception("a build failed")
        text = str(exc) or type(exc).__name__
        detail: dict[str, Any] = {"message": text}
        if code := getattr(exc, "code", 0):
            detail = {"code": code, "message": text}
        self.output.end()
        self.output.say({"errorDetail": detail, "error": text})

    def _cache_sources(self) -> list[Any]:
        found = []
        for name in self.options.cache_from:
            with contextlib.suppress(NotFound, InvalidParameter):
                found.append(self.engine.images.resolve(name))
        return found

    def _tell(self, text: str) -> None:
        self.output.say({"stream": text})


def platform_arguments(target: str) -> dict[str, str | None]:
    """The arguments that tell of platforms, which exist in front of the first FROM without an ARG."""
    from longshore.images.registry.platforms import host_platform, parse_platform

    here = host_platform()
    wanted = parse_platform(target) if target else here
    found: dict[str, str | None] = {}
    for prefix, platform in (("BUILD", here), ("TARGET", wanted)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found


def _tag(name: str) -> Reference:
    reference = parse_reference(name)
    if reference.digest:
        raise InvalidParameter("build tag cannot contain a digest")
    return reference


async def fetch_context(
    engine: Engine, options: BuildOptions, body: AsyncIterator[bytes], space: Workspace
) -> bytes:
    """Fill the workspace's context; the content of the Dockerfile. Raises InvalidParameter."""
    if options.remote and options.remote != "client-session":
        from longshore.engine.builder.remote import fetch_remote

        return await fetch_remote(engine, options, space)
    reader = BodyReader(body)

    def work() -> bytes:
        archive = cast(BinaryIO, io.BufferedReader(reader, 1 << 18))
        ids = engine.layers.ids
        space.fill(archive, lambda stream: unpack_context(stream, space.context, ids, reader.check))
        return space.dockerfile(options)

    try:
        return await to_its_end(work, cancel=reader.cancel, begin=in_own_thread)
    finally:
        reader.cancel()
