"""One stage of a build: its base, then its instructions in order."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.build.arguments import BuildArguments
from longshore.build.dockerfile import parse_line
from longshore.build.instructions import (
    Copy,
    From,
    Instruction,
    Maintainer,
    Onbuild,
    Run,
    Workdir,
    read_instruction,
)
from longshore.build.shell import expand_word
from longshore.build.stages import Stage, find_stage
from longshore.build.state import StageState
from longshore.engine.bridges import evaluated, to_its_end, while_wanted
from longshore.engine.builder.commit import commit_step, image_config
from longshore.engine.builder.output import Message, Step
from longshore.engine.workdir import setup_working_directory
from longshore.errors import InvalidParameter
from longshore.layers.layer import Layer
from longshore.types.container import Config

if TYPE_CHECKING:
    from longshore.engine.builder.build import Build

SCRATCH = "scratch"


class StageRun:
    """Runs one stage of `build`. `first` is the number of its FROM among all steps."""

    def __init__(self, build: Build, stage: Stage, first: int) -> None:
        self.build = build
        self.engine = build.engine
        self.stage = stage
        outside = build.arguments.outside
        self.state = StageState(BuildArguments(build.options.arguments, outside), build.program.escape)
        self._number = first
        self._at = 0
        self._containers: list[str] = []
        self.step = Step(build.output, stage.index)
        """What is told of the instruction under way."""

    async def run(self) -> str:
        """The id of the stage's image; "" if there is none, as for an empty stage of nothing."""
        try:
            self._announce(self.stage.begin.text)
            await self._begin(self.stage.begin)
            self._show_image()
            for instruction in self.stage.instructions:
                self._at += 1
                self._announce(instruction.text)
                await self.dispatch(instruction)
                self._show_image()
            if self.state.image_id:
                self.say({"aux": {"ID": self.state.image_id}})
            return self.state.image_id
        except Exception:
            if self._at < len(self.stage.lines):
                self.build.failed_line = self.build.failed_line or self.stage.lines[self._at]
            raise
        finally:
            self.build.output.stage_ended(self.stage.index)

    async def dispatch(self, instruction: Instruction, *, trigger: bool = False) -> None:
        """Do what an instruction says, or a trigger of the base image. Raises EngineError."""
        succeeded = False
        self.step = self.build.output.step(self.stage.index, instruction, trigger=trigger)
        try:
            await self._dispatch(instruction)
            self.step.complete()
            succeeded = True
        except BaseException as exc:
            self.step.fail(exc)
            raise
        finally:
            options = self.build.options
            if options.force_remove or (options.remove and succeeded):
                for container in self._containers:
                    self.tell(f"Removing intermediate container {container[:12]}\n")
            self._containers.clear()

    async def _dispatch(self, instruction: Instruction) -> None:
        if isinstance(instruction, Run):
            from longshore.engine.builder.run import run_command

            await run_command(self, instruction)
        elif isinstance(instruction, Copy):
            from longshore.engine.builder.copy import copy_files

            await copy_files(self, instruction)
        else:
            told = await evaluated(self.text_size(instruction), lambda: self.state.apply(instruction))
            for note in self.state.notes:
                self.tell(note)
            await self._configure(told, instruction)

    def text_size(self, instruction: Instruction) -> int:
        """Characters to deal with before an instruction can be done, variables included."""
        files = instruction.files if isinstance(instruction, Copy | Run) else []
        texts = [instruction.text, *(self.state.config.Env or []), *(each.content for each in files)]
        return sum(map(len, texts)) + self.state.arguments.size

    async def _configure(self, told: str, instruction: Instruction) -> None:
        """Make the image of a step that changes the configuration only."""
        state = self.state
        step = self.nop(told, writes=isinstance(instruction, Workdir))
        if await self.use_cache(step):
            return
        layer: Layer | None = None
        directory = state.config.WorkingDir
        if isinstance(instruction, Workdir) and directory.strip("/"):
            layers, chain = self.engine.layers, self.parent_chain()

            def fill(root: Path) -> None:
                setup_working_directory(root, directory, layers.ids.root)

            layer = await self.make_layer(lambda _: layers.build(chain, fill))
        # dockerd makes a container just to commit it. Clients look for the lines that it says about it.
        container = self.running_in(secrets.token_hex(32))
        await self.commit(step, layer, container)

    async def use_cache(self, step: Config) -> bool:
        """Go on from the image that this very step made before, if it did."""
        if self.stage.begin.name and self.stage.begin.name in self.build.options.no_cache_stages:
            return False
        found = await self.build.cache.find(self.state.image_id, step)
        if found:
            self.tell(" ---> Using cache\n")
            self.step.cached()
            self.state.image_id = found
        return bool(found)

    async def make_layer(self, work: Callable[[Callable[[], None]], Layer | None]) -> Layer | None:
        """Make a layer in a thread; it goes again if the build is cancelled meanwhile.

        `work` is given what to call now and then, which raises Abandoned in that case.
        """

        def give_back(layer: Layer | None) -> None:
            if layer is not None:
                self.engine.layers.release(layer)

        return await while_wanted(work, give_back)

    async def commit(self, step: Config, layer: Layer | None, container: str = "") -> None:
        """Make the image of a step, and go on from it. The reference to `layer` is given back."""
        state = self.state

        def work() -> str:
            try:
                return commit_step(
                    self.engine, state.image_id, self.config(), step, layer, container, state.author
                )
            finally:
                if layer is not None:
                    self.engine.layers.release(layer)

        state.image_id = await to_its_end(work)

    def empty_image(self) -> str:
        """An image of nothing, which a container needs that begins with nothing. Blocks."""
        return commit_step(self.engine, "", Config(), self.nop("FROM scratch"), None, "", "")

    def config(self) -> Config:
        """The configuration as of now, which names the image that the next step is made of."""
        self.state.config.Image = self.state.image_id
        return deepcopy(self.state.config)

    def step_config(self, command: list[str]) -> Config:
        """What a step is known by: the configuration, with what is done as its command."""
        config = self.config()
        config.Cmd = command
        return config

    def nop(self, told: str, *, writes: bool = False) -> Config:
        """As `step_config`, for a step that runs nothing. Those that write files have one word less."""
        words = [f"#(nop) {told}"] if writes else ["#(nop) ", told]
        return self.step_config([*self.state.shell(), *words])

    def running_in(self, container: str) -> str:
        """Say which container a step runs in; returns it."""
        self._containers.append(container)
        self.tell(f" ---> Running in {container[:12]}\n")
        return container

    def parent_chain(self) -> str | None:
        """The layers that the next step lies on top of."""
        if not self.state.image_id:
            return None
        return self.engine.images.images.get(self.state.image_id).chain_id or None

    def tell(self, text: str) -> None:
        """Show a line of text."""
        self.say({"stream": text})

    def say(self, message: Message) -> None:
        """Send a message when it is this stage's turn."""
        self.build.output.say(message, self.stage.index)

    async def _begin(self, begin: From) -> None:
        variables = self.build.arguments.for_from()
        escape = self.build.program.escape
        name = expand_word(begin.base, variables, escape)
        if not name:
            raise InvalidParameter(f"base name ({begin.base}) should not be blank")
        platform = expand_word(begin.platform, variables, escape) or self.build.options.platform
        config = Config()
        id = ""
        earlier = find_stage(self.build.program.stages[: self.stage.index], name)
        if earlier is not None and earlier.begin.name == name.lower():
            id = await self.build.result(earlier)
            self.state.arguments.inherit(self.build.arguments_of(earlier))
        elif name != SCRATCH:
            id = await self._base_image(name, platform)
        self.build.note_base(self.stage, id)
        if id:
            config = image_config(self.engine.images.images.get(id))
        triggers = self.state.begin(id, config)
        if triggers:
            plural = "s" if len(triggers) > 1 else ""
            self.tell(f"# Executing {len(triggers)} build trigger{plural}\n")
        for trigger in triggers:
            await self.dispatch(_read_trigger(trigger, self.build.program.escape), trigger=True)

    async def _base_image(self, name: str, platform: str) -> str:
        self.step = self.build.output.base(self.stage.index, name)
        try:
            id = await self.build.base_image(name, platform, self.say)
        except BaseException as exc:
            self.step.fail(exc)
            raise
        self.step.complete()
        return id

    def _announce(self, text: str) -> None:
        self.tell(f"Step {self._number}/{self.build.steps} : {text}")
        self.tell("\n")
        self._number += 1

    def _show_image(self) -> None:
        self.tell(f" ---> {self.state.image_id.removeprefix('sha256:')[:12]}\n")


def _read_trigger(trigger: str, escape: str) -> Instruction:
    instruction = read_instruction(parse_line(trigger, escape))
    if isinstance(instruction, From | Maintainer | Onbuild):
        word = trigger.split(maxsplit=1)[0].upper()
        raise InvalidParameter(f"{word} isn't allowed as an ONBUILD trigger")
    return instruction
