"""Dockerfile instructions that change a configuration: `docker import --change`, `docker commit --change`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

import msgspec

from longshore.errors import InvalidParameter

ConfigDict = dict[str, Any]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DEFAULT_SHELL = ["/bin/sh", "-c"]


def apply_changes(config: ConfigDict, changes: list[str]) -> None:
    """Apply each instruction to `config`, whose keys are the API's. Raises InvalidParameter."""
    for change in changes:
        for line in change.splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                _apply(config, line.strip())


def _apply(config: ConfigDict, line: str) -> None:
    word, _, arguments = line.partition(" ")
    instruction = _INSTRUCTIONS.get(word.upper())
    if instruction is None:
        raise InvalidParameter(f"{word.lower()} is not a valid change command")
    if not arguments.strip() and word.upper() not in ("CMD", "ENTRYPOINT"):
        raise InvalidParameter(f"{word.upper()} requires at least one argument")
    instruction(config, arguments.strip())


def _cmd(config: ConfigDict, text: str) -> None:
    config["Cmd"] = _command(config, text)


def _entrypoint(config: ConfigDict, text: str) -> None:
    config["Entrypoint"] = _command(config, text)


def _env(config: ConfigDict, text: str) -> None:
    environment = list(config.get("Env") or [])
    for key, value in _pairs(text, "ENV").items():
        environment = [each for each in environment if each.partition("=")[0] != key]
        environment.append(f"{key}={value}")
    config["Env"] = environment


def _expose(config: ConfigDict, text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in text.split():
        number, _, protocol = word.partition("/")
        first, _, last = number.partition("-")
        if not first.isdigit() or (last and not last.isdigit()) or protocol not in ("", "tcp", "udp", "sctp"):
            raise InvalidParameter(f"invalid containerPort: {word}")
        if not 0 < int(first) <= int(last or first) < 65536:
            raise InvalidParameter(f"invalid containerPort: {word}")
        for port in range(int(first), int(last or first) + 1):
            ports[f"{port}/{protocol or 'tcp'}"] = {}
    config["ExposedPorts"] = ports


def _label(config: ConfigDict, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **_pairs(text, "LABEL")}


def _user(config: ConfigDict, text: str) -> None:
    config["User"] = text


def _volume(config: ConfigDict, text: str) -> None:
    paths = _json_words(text)
    volumes = dict(config.get("Volumes") or {})
    for path in text.split() if paths is None else paths:
        if not path.strip():
            raise InvalidParameter("VOLUME specified can not be an empty string")
        volumes[path] = {}
    config["Volumes"] = volumes


def _workdir(config: ConfigDict, text: str) -> None:
    before = config.get("WorkingDir") or "/"
    config["WorkingDir"] = text if text.startswith("/") else f"{before.rstrip('/')}/{text}"


def _onbuild(config: ConfigDict, text: str) -> None:
    word = text.split(maxsplit=1)[0].upper()
    if word == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("FROM", "MAINTAINER"):
        raise InvalidParameter(f"{word} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or []), text]


def _stopsignal(config: ConfigDict, text: str) -> None:
    config["StopSignal"] = text


def _shell(config: ConfigDict, text: str) -> None:
    words = _json_words(text)
    if not words:
        raise InvalidParameter("SHELL requires the arguments to be in JSON form")
    config["Shell"] = words


def _healthcheck(config: ConfigDict, text: str) -> None:
    check: ConfigDict = {}
    names = {
        "interval": "Interval",
        "timeout": "Timeout",
        "start-period": "StartPeriod",
        "start-interval": "StartInterval",
    }
    rest = text
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.strip()
        key, _, value = flag[2:].partition("=")
        if key == "retries" and value.isdigit():
            check["Retries"] = int(value)
        elif key in names:
            check[names[key]] = _duration(value)
        else:
            raise InvalidParameter(f"unknown flag: {key}")
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE":
        check = {"Test": ["NONE"]}
    elif kind.upper() == "CMD":
        words = _json_words(command.strip())
        check["Test"] = ["CMD-SHELL", command.strip()] if words is None else ["CMD", *words]
    else:
        raise InvalidParameter(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    config["Healthcheck"] = check


def _command(config: ConfigDict, text: str) -> list[str]:
    words = _json_words(text)
    return [*(config.get("Shell") or _DEFAULT_SHELL), text] if words is None else words


def _json_words(text: str) -> list[str] | None:
    """The words if `text` is a JSON array of strings, else None."""
    if not text.startswith("["):
        return None
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError:
        return None


def _pairs(text: str, instruction: str) -> dict[str, str]:
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise InvalidParameter(f"Syntax error - {exc}") from None
    if not words or "=" not in words[0]:
        key, _, value = text.partition(" ")
        if not value:
            raise InvalidParameter(f"{instruction} must have two arguments")
        return {key: value.strip()}
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
            )
        if not key:
            raise InvalidParameter(f"{instruction} names can not be blank")
        pairs[key] = value
    return pairs


def _duration(text: str) -> int:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidParameter(f'time: invalid duration "{text}"')
    return int(sum(float(number) * _NANOSECONDS[unit] for number, unit in parts))


_INSTRUCTIONS: dict[str, Callable[[ConfigDict, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
