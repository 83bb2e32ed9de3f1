"""Instructions as objects, made from the words that the parser found, and checked as Docker checks them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from longshore.build.dockerfile import Heredoc, Node, heredoc
from longshore.build.flags import Flags
from longshore.build.mounts import Mount, parse_mount
from longshore.build.shell import go_quote
from longshore.errors import InvalidParameter
from longshore.types.container import HealthConfig

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9,
    "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """`text` is the instruction as written, which is what is shown of it."""

    text: str


@dataclass(frozen=True)
class From(Instruction):
    """FROM: a base by name, `name` "" without AS."""

    base: str
    name: str
    platform: str


@dataclass(frozen=True)
class Arg(Instruction):
    """ARG: names with defaults; None where there is none."""

    args: list[tuple[str, str | None]]


@dataclass(frozen=True)
class Env(Instruction):
    """ENV."""

    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Label(Instruction):
    """LABEL. `literal`: the request's own labels, in which nothing is expanded."""

    pairs: list[tuple[str, str]]
    literal: bool = False


@dataclass(frozen=True)
class Copy(Instruction):
    """COPY, and ADD with `add`. `files` are here-documents, after the other sources."""

    add: bool
    sources: list[str]
    destination: str
    files: list[Heredoc] = field(default_factory=list)
    origin: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: list[str] = field(default_factory=list)
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None
    """None unpacks what is local, and only that."""


@dataclass(frozen=True)
class Run(Instruction):
    """RUN. `shell`: the one word of `command` goes to the shell."""

    command: list[str]
    shell: bool
    files: list[Heredoc] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    network: str = "default"
    security: str = "sandbox"
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Cmd(Instruction):
    """CMD. `shell`: the one word goes to the shell."""

    command: list[str]
    shell: bool


@dataclass(frozen=True)
class Entrypoint(Instruction):
    """ENTRYPOINT. `shell`: the one word goes to the shell."""

    command: list[str]
    shell: bool


@dataclass(frozen=True)
class Expose(Instruction):
    """EXPOSE: ports and ranges, with variables."""

    ports: list[str]


@dataclass(frozen=True)
class Healthcheck(Instruction):
    """HEALTHCHECK."""

    check: HealthConfig


@dataclass(frozen=True)
class Maintainer(Instruction):
    """MAINTAINER."""

    name: str


@dataclass(frozen=True)
class Onbuild(Instruction):
    """ONBUILD: an instruction for whoever builds on the image."""

    trigger: str


@dataclass(frozen=True)
class Shell(Instruction):
    """SHELL."""

    command: list[str]


@dataclass(frozen=True)
class StopSignal(Instruction):
    """STOPSIGNAL."""

    signal: str


@dataclass(frozen=True)
class User(Instruction):
    """USER."""

    user: str


@dataclass(frozen=True)
class Volume(Instruction):
    """VOLUME."""

    paths: list[str]


@dataclass(frozen=True)
class Workdir(Instruction):
    """WORKDIR."""

    path: str


def read_instruction(node: Node) -> Instruction:
    """Raises InvalidParameter."""
    read = _READERS.get(node.word)
    if read is None:
        raise InvalidParameter(f"unknown instruction: {node.word.upper()}")
    flags = Flags(node.flags)
    instruction = read(node, flags)
    flags.end()
    return instruction


def _from(node: Node, flags: Flags) -> From:
    name = ""
    if len(node.args) == 3 and node.args[1].lower() == "as":
        name = node.args[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise InvalidParameter(
                f"invalid name for build stage: {go_quote(node.args[2])}, "
                "name can't start with a number or contain symbols"
            )
    elif len(node.args) != 1:
        raise InvalidParameter("FROM requires either one or three arguments")
    return From(node.text.strip(), node.args[0], name, flags.text("platform"))


def _arg(node: Node, _: Flags) -> Arg:
    if not node.args:
        raise InvalidParameter("ARG requires at least one argument")
    args: list[tuple[str, str | None]] = []
    for word in node.args:
        key, equals, value = word.partition("=")
        if not key:
            raise InvalidParameter("ARG names can not be blank")
        args.append((key, value if equals else None))
    return Arg(node.text, args)


def _pairs(node: Node) -> list[tuple[str, str]]:
    instruction = node.word.upper()
    if not node.args:
        raise InvalidParameter(f"{instruction} requires at least one argument")
    pairs = list(zip(node.args[::2], node.args[1::2], strict=True))
    if not all(key for key, _ in pairs):
        raise InvalidParameter(f"{instruction} names can not be blank")
    return pairs


def _copy(node: Node, flags: Flags) -> Copy:
    instruction = node.word.upper()
    if len(node.args) < 2:
        raise InvalidParameter(
            f"{instruction} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    *sources, destination = node.args
    if heredoc(destination) is not None:
        raise InvalidParameter(f"{instruction} cannot accept a heredoc as a destination")
    written = {each.name: each for each in node.heredocs}
    files = [written[found.name] for each in sources if (found := heredoc(each)) and found.name in written]
    add = node.word == "add"
    return Copy(
        node.text,
        add,
        [each for each in sources if heredoc(each) is None],
        destination,
        files,
        origin="" if add else flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.truth("link"),
        parents=False if add else flags.truth("parents"),
        exclude=flags.texts("exclude"),
        checksum=flags.text("checksum") if add else "",
        keep_git_dir=flags.truth("keep-git-dir") if add else False,
        unpack=flags.choice("unpack") if add else None,
    )


def _run(node: Node, flags: Flags) -> Run:
    if not node.args:
        raise InvalidParameter("RUN requires at least one argument")
    network, security = flags.text("network") or "default", flags.text("security") or "sandbox"
    if network not in ("default", "none", "host"):
        raise InvalidParameter(f"invalid network mode: {network}")
    if security not in ("sandbox", "insecure"):
        raise InvalidParameter(f"security {go_quote(security)} is not valid")
    mounts = [parse_mount(each) for each in flags.texts("mount")]
    return Run(
        node.text, node.args, not node.json, node.heredocs, mounts, network, security, list(node.flags)
    )


def _cmd(node: Node, _: Flags) -> Cmd:
    return Cmd(node.text, node.args, not node.json)


def _entrypoint(node: Node, _: Flags) -> Entrypoint:
    return Entrypoint(node.text, node.args, not node.json)


def _expose(node: Node, _: Flags) -> Expose:
    if not node.args:
        raise InvalidParameter("EXPOSE requires at least one argument")
    return Expose(node.text, sorted(node.args))


def _healthcheck(node: Node, flags: Flags) -> Healthcheck:
    if not node.args:
        raise InvalidParameter("HEALTHCHECK requires at least one argument")
    kind, *command = node.args
    kind = kind.upper()
    if kind == "NONE":
        if command:
            raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(node.text, HealthConfig(Test=["NONE"]))
    if kind != "CMD":
        raise InvalidParameter(f"Unknown type {go_quote(kind)} in HEALTHCHECK (try CMD)")
    if not command:
        raise InvalidParameter("Missing command after HEALTHCHECK CMD")
    check = HealthConfig(
        Test=["CMD" if node.json else "CMD-SHELL", *command],
        Interval=_interval(flags, "interval"),
        Timeout=_interval(flags, "timeout"),
        StartPeriod=_interval(flags, "start-period"),
        StartInterval=_interval(flags, "start-interval"),
    )
    if retries := flags.text("retries"):
        if not re.fullmatch(r"[+-]?\d{1,9}", retries):
            raise InvalidParameter(f'strconv.ParseInt: parsing "{retries}": invalid syntax')
        if int(retries) < 0:
            raise InvalidParameter(f"--retries cannot be negative ({int(retries)})")
        check.Retries = int(retries)
    return Healthcheck(node.text, check)


def _interval(flags: Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    parts = _DURATION.findall(text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise InvalidParameter(f'time: invalid duration "{text}"')
    duration = int(sum(float(number) * _NANOSECONDS[unit] for number, unit in parts))
    if 0 < duration < 10**6:
        raise InvalidParameter(f"Interval {go_quote(name)} cannot be less than 1ms")
    return duration


def _one(node: Node) -> str:
    if len(node.args) != 1:
        raise InvalidParameter(f"{node.word.upper()} requires exactly one argument")
    return node.args[0]


def _onbuild(node: Node, _: Flags) -> Onbuild:
    if not node.args:
        raise InvalidParameter("ONBUILD requires at least one argument")
    word = node.args[0].split(maxsplit=1)[0].upper()
    if word == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("MAINTAINER", "FROM"):
        raise InvalidParameter(f"{word} isn't allowed as an ONBUILD trigger")
    trigger = re.sub(r"^\s*ONBUILD\s*", "", node.text, flags=re.IGNORECASE)
    trigger += "".join(f"\n{each.content}{each.name}" for each in node.heredocs)
    return Onbuild(node.text, trigger)


def _shell(node: Node, _: Flags) -> Shell:
    if not node.json:
        raise InvalidParameter("SHELL requires the arguments to be in JSON form")
    if not node.args:
        raise InvalidParameter("SHELL requires at least one argument")
    return Shell(node.text, node.args)


def _volume(node: Node, _: Flags) -> Volume:
    if not node.args:
        raise InvalidParameter("VOLUME requires at least one argument")
    paths = [each.strip() for each in node.args]
    if not all(paths):
        raise InvalidParameter("VOLUME specified can not be an empty string")
    return Volume(node.text, paths)


_READERS: dict[str, Callable[[Node, Flags], Instruction]] = {
    "add": _copy,
    "arg": _arg,
    "cmd": _cmd,
    "copy": _copy,
    "entrypoint": _entrypoint,
    "env": lambda node, _: Env(node.text, _pairs(node)),
    "expose": _expose,
    "from": _from,
    "healthcheck": _healthcheck,
    "label": lambda node, _: Label(node.text, _pairs(node)),
    "maintainer": lambda node, _: Maintainer(node.text, _one(node)),
    "onbuild": _onbuild,
    "run": _run,
    "shell": _shell,
    "stopsignal": lambda node, _: StopSignal(node.text, _one(node)),
    "user": lambda node, _: User(node.text, _one(node)),
    "volume": _volume,
    "workdir": lambda node, _: Workdir(node.text, _one(node)),
}
