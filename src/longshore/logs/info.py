"""What a log driver is told about its container, and what of it the user wants in the log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from longshore.errors import InvalidParameter
from longshore.logs.options import parse_bool

_FIELD = re.compile(r"\{\{\s*(?:(json|lower|upper|truncate|slice)\s+)?\.(\w+)((?:\s+\d+){0,2})\s*\}\}")


class LogInfo(msgspec.Struct, kw_only=True):
    """A container as its log driver sees it (logger.Info)."""

    container_id: str
    container_name: str
    log_path: Path
    """The file of this driver, e.g. containers/<id>/<id>-json.log; see `log_path`."""
    image_id: str = ""
    image_name: str = ""
    command: str = ""
    """The program with its arguments, separated by spaces."""
    created: str = ""
    """RFC 3339."""
    env: list[str] = []
    """`KEY=value` each."""
    labels: dict[str, str] = {}
    daemon_name: str = "docker"
    must_connect: bool = True
    """Whether a peer that cannot be reached is an error; not for a container that runs already."""


def log_path(
    driver: str, container_directory: Path, container_id: str, options: Mapping[str, str] | None = None
) -> Path | None:
    """Where `driver` keeps the log of a container, None if nowhere. The layout is dockerd's."""
    if driver == "json-file":
        return container_directory / f"{container_id}-json.log"
    if driver == "local":
        return container_directory / "local-logs" / "container.log"
    if driver == "none" or not caches(options or {}):
        return None
    return container_directory / "container-cached.log"


def caches(options: Mapping[str, str]) -> bool:
    """Whether a driver that only sends keeps a copy to read back (log option cache-disabled)."""
    return not parse_bool(options.get("cache-disabled") or "false")


def extra_attributes(options: Mapping[str, str], info: LogInfo, *, tag: bool = True) -> dict[str, str]:
    """The attributes asked for by the options labels, labels-regex, env, env-regex and, with `tag`, tag.

    Raises InvalidParameter for a bad expression or template.
    """
    environment = dict(pair.split("=", 1) for pair in info.env if "=" in pair)
    attributes = _pick(info.labels, options.get("labels", ""), options.get("labels-regex", ""))
    attributes |= _pick(environment, options.get("env", ""), options.get("env-regex", ""))
    if tag and (filled := parse_tag(options.get("tag", ""), info)):
        attributes["tag"] = filled
    return attributes


def parse_tag(template: str, info: LogInfo, default: str = "") -> str:
    """Fill in a tag template such as `{{.Name}}/{{.ID}}` (docs: "Customize log driver output")."""
    template = template or default
    name = info.container_name.removeprefix("/")
    fields = {
        "ID": info.container_id[:12],
        "FullID": info.container_id,
        "Name": name,
        "ImageID": info.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": info.image_id,
        "ImageName": info.image_name,
        "DaemonName": info.daemon_name,
        "ContainerID": info.container_id,
        "ContainerName": info.container_name,
        "ContainerImageID": info.image_id,
        "ContainerImageName": info.image_name,
    }

    def fill(match: re.Match[str]) -> str:
        if match[2] not in fields:
            where = f'template: log-tag:1:{match.start(2) - 1}: executing "log-tag" at <.{match[2]}>'
            raise InvalidParameter(f"{where}: can't evaluate field {match[2]} in type *logger.Info")
        return _apply(match[1], fields[match[2]], [int(number) for number in match[3].split()])

    filled = _FIELD.sub(fill, template)
    if "{{" in _FIELD.sub("", template):
        raise InvalidParameter(f"template: log-tag: cannot parse {template!r}")
    return filled


def _apply(function: str | None, text: str, numbers: list[int]) -> str:
    """A template's function, of those that dockerd has (daemon/logger/templates)."""
    if function == "json":
        return msgspec.json.encode(text).decode()
    if function == "truncate" and len(numbers) == 1:
        return text[: numbers[0]]
    if function == "slice":
        return text[slice(*numbers)] if len(numbers) == 2 else text[sum(numbers) :]
    if numbers or function == "truncate":
        raise InvalidParameter(f"template: log-tag: wrong number of args for {function or 'field'}")
    return text.upper() if function == "upper" else text.lower() if function == "lower" else text


def _pick(values: Mapping[str, str], names: str, pattern: str) -> dict[str, str]:
    picked = {name: values[name] for name in names.split(",") if name in values} if names else {}
    if pattern:
        try:
            matches = re.compile(pattern).search
        except re.error as exc:
            raise InvalidParameter(f"error parsing regexp: {exc}") from None
        picked |= {name: value for name, value in values.items() if matches(name)}
    return picked
