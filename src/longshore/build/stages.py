"""A Dockerfile's stages, which of them a build needs, and what each waits for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from longshore.build.dockerfile import Dockerfile
from longshore.build.instructions import Arg, Copy, From, Instruction, Label, Run, read_instruction
from longshore.build.patterns import clean
from longshore.errors import InvalidParameter
from longshore.types.numbers import decimal

_ELSEWHERE = re.compile(r"[a-z]+://|git@")
_SEVERAL = re.compile(r"[$*?\[\\]")


@dataclass
class Stage:
    """FROM, and what follows it. `index` counts from 0."""

    index: int
    begin: From
    instructions: list[Instruction] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """The lines of the Dockerfile in which FROM and the instructions begin, as far as they come from it."""


@dataclass
class Program:
    """A whole Dockerfile: the arguments before its first FROM, and its stages."""

    arguments: list[Arg]
    stages: list[Stage]
    escape: str
    warnings: list[str]


def read_program(dockerfile: Dockerfile) -> Program:
    """Raises InvalidParameter with the line that is wrong."""
    arguments: list[Arg] = []
    stages: list[Stage] = []
    for node in dockerfile.nodes:
        try:
            instruction = read_instruction(node)
            if isinstance(instruction, From):
                stages.append(Stage(len(stages), instruction, lines=[node.line]))
            elif stages:
                stages[-1].instructions.append(instruction)
                stages[-1].lines.append(node.line)
            elif isinstance(instruction, Arg):
                arguments.append(instruction)
            else:
                raise InvalidParameter("no build stage in current context")
        except InvalidParameter as exc:
            raise InvalidParameter(f"dockerfile parse error on line {node.line}: {exc}") from None
    return Program(arguments, stages, dockerfile.escape, dockerfile.warnings)


def target_stage(stages: list[Stage], target: str) -> Stage:
    """The stage of that name or number, the last for "". Raises InvalidParameter."""
    if not stages:
        raise InvalidParameter("No image was generated. Is your Dockerfile empty?")
    if not target:
        return stages[-1]
    found = find_stage(stages, target)
    if found is None:
        raise InvalidParameter(f"failed to reach build target {target} in Dockerfile")
    return found


def find_stage(stages: Iterable[Stage], name: str) -> Stage | None:
    """The last stage of that name, or the one of that number."""
    found = None
    for stage in stages:
        if stage.begin.name and stage.begin.name == name.lower():
            found = stage
    if found is None and (number := decimal(name)) is not None:
        found = next((stage for stage in stages if stage.index == number), None)
    return found


def add_labels(stage: Stage, labels: dict[str, str]) -> None:
    """The labels of the request, as further instructions of the stage."""
    stage.instructions += [
        Label(f"LABEL {key}={value}", [(key, value)], literal=True) for key, value in sorted(labels.items())
    ]


def needed_stages(
    stages: list[Stage], target: Stage, base_name: Callable[[Stage], str]
) -> dict[int, set[int]]:
    """The stages that `target` needs, itself included, in order, each with those it needs directly.

    `base_name` is a stage's base with its variables expanded.
    """
    needs: dict[int, set[int]] = {}
    waiting = [target]
    while waiting:
        stage = waiting.pop()
        if stage.index in needs:
            continue
        before = stages[: stage.index]
        names = [base_name(stage), *origins(stage.instructions)]
        found = [each for name in names if name and (each := find_stage(before, name)) is not None]
        if decimal(base := base_name(stage)) is not None:
            # A base goes by name only.
            found = [each for each in found if str(each.index) != base or base in origins(stage.instructions)]
        needs[stage.index] = {each.index for each in found}
        waiting += found
    return dict(sorted(needs.items()))


def context_paths(stages: Iterable[Stage]) -> tuple[str, ...] | None:
    """What the stages take from the context; None if that cannot be told before they run, or is all of it."""
    found: set[str] = set()
    for each in (instruction for stage in stages for instruction in stage.instructions):
        sources: list[str] = []
        if isinstance(each, Copy) and not each.origin:
            sources = in_context(each.sources, add=each.add)
        elif isinstance(each, Run):
            mounts = [mount for mount in each.mounts if mount.kind == "bind" and not mount.origin]
            sources = [mount.source for mount in mounts]
        for source in sources:
            path = context_path(source)
            if path is None:
                return None
            found.add(path)
    return tuple(sorted(found))


def in_context(sources: Iterable[str], *, add: bool) -> list[str]:
    """Those of an instruction's sources that are paths: ADD takes URLs, too."""
    return [source for source in sources if not (add and _ELSEWHERE.match(source))]


def context_path(source: str) -> str | None:
    """The one path in the context that `source` stands for; None if it stands for all, or several."""
    path = clean("/" + source).lstrip("/")
    return None if not path or _SEVERAL.search(path) else path


def origins(instructions: Iterable[Instruction]) -> list[str]:
    """The `from` of every COPY and of every mount."""
    names = []
    for each in instructions:
        if isinstance(each, Copy) and each.origin:
            names.append(each.origin)
        elif isinstance(each, Run):
            names += [mount.origin for mount in each.mounts if mount.origin]
    return names
