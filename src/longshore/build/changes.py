"""Instructions that change a configuration and nothing else: those of `docker commit` and `docker import`."""

from __future__ import annotations

from copy import deepcopy

from longshore.build.arguments import BuildArguments
from longshore.build.dockerfile import parse
from longshore.build.instructions import read_instruction
from longshore.build.state import StageState
from longshore.errors import InvalidParameter
from longshore.types.container import Config

_ALLOWED = frozenset(
    ("cmd", "entrypoint", "env", "expose", "healthcheck", "label", "onbuild", "stopsignal", "user")
) | {"volume", "workdir"}


def apply_changes(config: Config, changes: list[str]) -> Config:
    """What the instructions, as lines of a Dockerfile, make of `config`, which stays as it is.

    Raises InvalidParameter.
    """
    if not changes:
        return config
    dockerfile = parse("\n".join(changes).encode("utf-8", "surrogateescape"), "")
    for node in dockerfile.nodes:
        if node.word not in _ALLOWED:
            raise InvalidParameter(f"{node.word} is not a valid change command")
    state = StageState(BuildArguments({}, {}), dockerfile.escape)
    state.config = deepcopy(config)
    for instruction in [read_instruction(node) for node in dockerfile.nodes]:
        state.apply(instruction)
    return state.config
