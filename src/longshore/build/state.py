"""What a stage's instructions make of its configuration."""

from __future__ import annotations

import re
from copy import deepcopy
from posixpath import join

from longshore.build.arguments import BuildArguments
from longshore.build.instructions import (
    Arg,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from longshore.build.patterns import clean
from longshore.build.shell import environment, expand, expand_word, go_quote
from longshore.errors import InvalidParameter
from longshore.linux.signals import parse_signal
from longshore.types.codec import convert, to_plain, valid_text
from longshore.types.container import Config, HealthConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULT_SHELL = ["/bin/sh", "-c"]


class StageState:
    """Where a stage has got to: its image, the configuration of the next one, its arguments."""

    def __init__(self, arguments: BuildArguments, escape: str) -> None:
        self.arguments = arguments
        self.escape = escape
        self.image_id = ""
        """The image of the last step; "" while there is none, as behind FROM scratch."""
        self.config = Config()
        self.author = ""
        self.notes: list[str] = []
        """What is to be shown of the instruction just applied."""
        self._cmd_set = False

    def begin(self, image_id: str, config: Config) -> list[str]:
        """FROM: take over the image's configuration. Returns the triggers that it holds."""
        self.image_id = image_id
        self.config = deepcopy(config)
        names = environment(self.config.Env or [])
        if "PATH" not in names:
            self.config.Env = [*(self.config.Env or []), f"PATH={DEFAULT_PATH}"]
        self.config.OpenStdin = self.config.StdinOnce = False
        triggers, self.config.OnBuild = self.config.OnBuild or [], None
        return triggers

    def variables(self) -> dict[str, str]:
        """What the words of the next instruction may refer to."""
        env = self.config.Env or []
        return {**self.arguments.beside(env), **environment(env)}

    def word(self, text: str) -> str:
        """`text` with its variables. Raises InvalidParameter."""
        return expand_word(text, self.variables(), self.escape)

    def shell(self) -> list[str]:
        """What runs commands that are given as one text."""
        return list(self.config.Shell or _DEFAULT_SHELL)

    def command_line(self, command: list[str], *, shell: bool) -> list[str]:
        """The words of a command in either of its forms."""
        return [*self.shell(), *command] if shell else list(command)

    def apply(self, instruction: Instruction) -> str:
        """Change the configuration; the text that the history has of it. Raises InvalidParameter.

        For all instructions but FROM, RUN, COPY and ADD.
        """
        told = self._apply(instruction)
        if not instruction.text.isascii():
            # What is no UTF-8 could not be part of an image, whose configuration is JSON.
            self.config = convert(valid_text(to_plain(self.config)), Config)
            self.author = valid_text(self.author)
        return valid_text(told)

    def _apply(self, instruction: Instruction) -> str:
        self.notes = []
        config = self.config
        match instruction:
            case Arg():
                return self._arg(instruction)
            case Env():
                return self._env(instruction)
            case Label():
                return self._label(instruction)
            case Cmd():
                config.Cmd = self.command_line(instruction.command, shell=instruction.shell)
                self._cmd_set = self._cmd_set or bool(instruction.command)
                return f"CMD {_quoted(config.cmd)}"
            case Entrypoint():
                config.Entrypoint = self.command_line(instruction.command, shell=instruction.shell)
                if not self._cmd_set:
                    config.Cmd = None  # What the base image runs by default suits its own entrypoint only.
                return f"ENTRYPOINT {_quoted(config.entrypoint)}"
            case Expose():
                return self._expose(instruction)
            case Healthcheck():
                return self._healthcheck(instruction)
            case Maintainer():
                self.author = instruction.name
                return f"MAINTAINER {instruction.name}"
            case Onbuild():
                config.OnBuild = [*(config.OnBuild or []), instruction.trigger]
                return f"ONBUILD {instruction.trigger}"
            case Shell():
                config.Shell = instruction.command
                return f"SHELL [{' '.join(instruction.command)}]"
            case StopSignal():
                signal = self.word(instruction.signal)
                parse_signal(signal)
                config.StopSignal = signal
                return f"STOPSIGNAL {signal}"
            case User():
                config.User = self.word(instruction.user)
                return f"USER {config.User}"
            case Volume():
                paths = [self.word(path) for path in instruction.paths]
                if not all(paths):
                    raise InvalidParameter("VOLUME specified can not be an empty string")
                config.Volumes = {**(config.Volumes or {}), **{path: {} for path in paths}}
                return f"VOLUME [{' '.join(paths)}]"
            case Workdir():
                config.WorkingDir = self._working_directory(instruction)
                return f"WORKDIR {config.WorkingDir}"
        raise TypeError(f"{type(instruction).__name__} changes more than the configuration")

    def _arg(self, instruction: Arg) -> str:
        told = []
        for name, default in instruction.args:
            key = valid_text(self.word(name))
            value = None if default is None else valid_text(self.word(default))
            self.arguments.declare(key, value)
            told.append(key if value is None else f"{key}={value}")
        return f"ARG {' '.join(told)}"

    def _env(self, instruction: Env) -> str:
        variables = self.variables()
        pairs = [
            (expand_word(key, variables, self.escape), expand_word(value, variables, self.escape))
            for key, value in instruction.pairs
        ]
        env = list(self.config.Env or [])
        for key, value in pairs:
            at = next((at for at, entry in enumerate(env) if entry.partition("=")[0] == key), len(env))
            env[at : at + 1] = [f"{key}={value}"]
        self.config.Env = env
        return " ".join(["ENV", *(f"{key}={value}" for key, value in pairs)])

    def _label(self, instruction: Label) -> str:
        pairs = instruction.pairs
        if not instruction.literal:
            pairs = [(self.word(key), self.word(value)) for key, value in pairs]
        self.config.Labels = {**(self.config.Labels or {}), **dict(pairs)}
        return " ".join(["LABEL", *(f"{key}={value}" for key, value in pairs)])

    def _expose(self, instruction: Expose) -> str:
        variables = self.variables()
        # The only instruction in which a variable may hold several words.
        words = [word for text in instruction.ports for word in expand(text, variables, self.escape).words]
        ports = dict(self.config.ExposedPorts or {})
        for word in words:
            ports.update({port: {} for port in _ports(word)})
        self.config.ExposedPorts = ports
        return f"EXPOSE {' '.join(words)}"

    def _healthcheck(self, instruction: Healthcheck) -> str:
        before = self.config.Healthcheck
        if before is not None and before.Test and before.Test[0] != "NONE":
            self.notes.append(f"Note: overriding previous HEALTHCHECK: [{' '.join(before.Test)}]\n")
        self.config.Healthcheck = deepcopy(instruction.check)
        return f"HEALTHCHECK {_quoted_check(instruction.check)}"

    def _working_directory(self, instruction: Workdir) -> str:
        path = self.word(instruction.path)
        if not path:
            raise InvalidParameter("cannot normalize nothing")
        return path if path.startswith("/") else clean(join("/", self.config.WorkingDir, path))


def _ports(word: str) -> list[str]:
    text, _, protocol = word.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidParameter(f"invalid proto: {protocol}")
    matched = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    first, last = (int(matched[1]), int(matched[2] or matched[1])) if matched else (0, 0)
    if matched is None or not first <= last < 65536:
        raise InvalidParameter(f"invalid containerPort: {text}")
    return [f"{number}/{protocol}" for number in range(first, last + 1)]


def _quoted(words: list[str]) -> str:
    return f"[{' '.join(map(go_quote, words))}]"


def _quoted_check(check: HealthConfig) -> str:
    durations = (check.Interval, check.Timeout, check.StartPeriod, check.StartInterval)
    told = " ".join(f'"{go_duration(each)}"' for each in durations)
    # Go's %q takes the number of retries for a character.
    character = chr(check.Retries)
    retries = character if character.isprintable() and character not in "'\\" else f"\\x{check.Retries:02x}"
    return f"&{{{_quoted(check.Test or [])} {told} '{retries}'}}"


def go_duration(nanoseconds: int) -> str:
    """A duration as Go prints it."""
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 10**9:
        for unit, size in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if nanoseconds >= size:
                return f"{nanoseconds / size:g}{unit}"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest // 10**9}.{rest % 10**9:09}".rstrip("0").rstrip(".")
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
