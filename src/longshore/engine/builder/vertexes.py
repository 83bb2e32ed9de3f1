"""A build's steps as vertexes, which BuildKit's clients show, with the names that its frontend gives them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from longshore.build.instructions import Copy, Instruction, Run, Workdir
from longshore.build.stages import Program, find_stage
from longshore.buildkit.progress import SolveProgress, Vertex
from longshore.engine.builder.output import BuildOutput, Message, Step
from longshore.errors import EngineError, InvalidParameter
from longshore.images.reference import parse as parse_reference


class VertexOutput(BuildOutput):
    """Tells of steps as they begin and end, all stages at once. The classic builder's text is not shown."""

    def __init__(self, progress: SolveProgress, program: Program) -> None:
        super().__init__()
        self._progress = progress
        self._program = program
        self._totals: dict[int, int] = {}
        self._counts: dict[int, int] = {}
        self._last: dict[int, str] = {}
        self._current: dict[int, VertexStep] = {}

    def base(self, stage: int, name: str) -> Step:
        self._totals[stage] = self._total(stage) + 1
        with suppress(InvalidParameter):  # That is told when the image is looked for.
            name = str(parse_reference(name).tagged)
        return self._begin(stage, f"FROM {name}", [], base=True)

    def step(self, stage: int, instruction: Instruction, *, trigger: bool = False) -> Step:
        if not isinstance(instruction, Copy | Run | Workdir):
            return Step(self, stage)
        if trigger:
            self._totals[stage] = self._total(stage) + 1
        word, _, rest = " ".join(instruction.text.split("\n")).strip().partition(" ")
        inputs = []
        if isinstance(instruction, Copy) and instruction.origin:
            origin = find_stage(self._program.stages[:stage], instruction.origin)
            if origin is not None and origin.index in self._last:
                inputs.append(self._last[origin.index])
        return self._begin(stage, f"{'ONBUILD ' if trigger else ''}{word.upper()} {rest}", inputs)

    def transferring(self, name: str) -> VertexStep:
        """Begin something that is no step of the Dockerfile, and fetches what is elsewhere."""
        return VertexStep(self, -1, self._progress.vertex(name), base=False)

    def warn(self, text: str, told: str) -> None:
        for line in text.splitlines():
            self._progress.warn(line)

    def say(self, message: Message, stage: int | None = None) -> None:
        """Of the classic builder's messages, transfers are of interest, and belong to the present step."""
        step = self._current.get(-1 if stage is None else stage)
        if step is not None and "status" in message:
            step.transfer(message)

    async def room(self, stage: int) -> None:
        """There always is: what a vertex may print is limited."""

    def _begin(self, stage: int, text: str, inputs: list[str], *, base: bool = False) -> VertexStep:
        self._counts[stage] = number = self._counts.get(stage, 0) + 1
        total = self._total(stage)
        name = ""
        if len(self._program.stages) > 1:
            name = f"{self._program.stages[stage].begin.name or f'stage-{stage}'} "
        inputs = [*([self._last[stage]] if stage in self._last else []), *inputs]
        vertex = self._progress.vertex(f"[{name}{number:>{len(str(total))}}/{total}] {text}", inputs)
        self._last[stage] = vertex.digest
        step = self._current[stage] = VertexStep(self, stage, vertex, base=base)
        return step

    def _total(self, stage: int) -> int:
        if stage not in self._totals:
            instructions = self._program.stages[stage].instructions
            self._totals[stage] = sum(isinstance(each, Copy | Run | Workdir) for each in instructions)
        return self._totals[stage]


class VertexStep(Step):
    """A step that is a vertex."""

    def __init__(self, output: BuildOutput, stage: int, vertex: Vertex, *, base: bool) -> None:
        super().__init__(output, stage)
        self._vertex = vertex
        self._base = base
        self._sizes: dict[str, int] = {}

    def wrote(self, descriptor: int, data: bytes) -> None:
        self._vertex.log(data, descriptor)

    def cached(self) -> None:
        self._vertex.cached()

    def complete(self) -> None:
        if self._base:
            self._vertex.cached()  # Nothing was transferred: the image was here.
        else:
            self._vertex.complete()

    def fail(self, exc: BaseException) -> None:
        self._vertex.fail(failure_text(exc))

    def transfer(self, message: dict[str, Any]) -> None:
        """A pull or a download says how far it is."""
        self._base = False
        id, what = str(message.get("id") or "download"), str(message.get("status", ""))
        detail = message.get("progressDetail") or {}
        current, total = detail.get("current") or 0, detail.get("total") or 0
        self._sizes[id] = total or self._sizes.get(id, current)
        if what == "Downloading":
            self._vertex.status(id, current, total)
        elif what == "Download complete":
            self._vertex.status(id, self._sizes[id], self._sizes[id], done=True)
        elif what == "Extracting":
            self._vertex.status(f"extracting {id}", current, total)
        elif what == "Pull complete":
            self._vertex.status(f"extracting {id}", done=True)


def failure_text(exc: BaseException) -> str:
    """What BuildKit's users read of a failure."""
    from longshore.engine.builder.run import CommandFailed

    if isinstance(exc, asyncio.CancelledError):
        return "context canceled"
    if isinstance(exc, CommandFailed):
        command = " ".join(exc.command)
        return f'process "{command}" did not complete successfully: exit code: {exc.code}'
    return exc.message if isinstance(exc, EngineError) else str(exc) or type(exc).__name__
