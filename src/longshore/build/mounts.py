"""`RUN --mount=…`, as BuildKit reads it."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

from longshore.errors import InvalidParameter

_SIZE = re.compile(r"(\d{1,15})\s*([kmgtp]?)i?b?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")


@dataclass(frozen=True)
class Mount:
    """One mount of a step. `size` in bytes; `mode`, `uid` and `gid` None where nothing was said."""

    kind: str = "bind"
    target: str = ""
    source: str = ""
    origin: str = ""
    """`from`: a stage or an image; "" for the build context, or for nothing with a cache."""
    read_only: bool = True
    id: str = ""
    sharing: str = "shared"
    required: bool = False
    size: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str = ""


def parse_mount(text: str) -> Mount:
    """Raises InvalidParameter."""
    fields: dict[str, str | None] = {}
    try:
        words = next(csv.reader([text], strict=True), [])
    except csv.Error as exc:
        raise InvalidParameter(f"failed to parse csv mounts: {exc}") from None
    for word in words:
        key, equals, value = word.partition("=")
        fields[key.strip().lower()] = value if equals else None
    kind = (fields.pop("type", None) or "bind").lower()
    if kind not in _KINDS:
        raise InvalidParameter(f'unsupported mount type "{kind}"')
    read_only = kind == "bind"
    settings: dict[str, object] = {"kind": kind}
    for key, given in fields.items():
        if key in ("readonly", "ro"):
            read_only = _truth(key, given)
            continue
        if key in ("readwrite", "rw"):
            read_only = not _truth(key, given)
            continue
        if key == "required":
            settings["required"] = _truth(key, given)
            continue
        if given is None:
            raise InvalidParameter(f"invalid field '{key}' must be a key=value pair")
        settings.update(_setting(kind, key, given))
    mount = Mount(**settings, read_only=read_only)  # type: ignore[arg-type]
    return _checked(mount)


def _setting(kind: str, key: str, value: str) -> dict[str, object]:
    match key:
        case "target" | "dst" | "destination":
            return {"target": value}
        case "source" | "src":
            return {"source": value}
        case "from":
            return {"origin": value}
        case "id" | "env":
            return {key: value}
        case "sharing" if value in _SHARING:
            return {"sharing": value}
        case "sharing":
            raise InvalidParameter(f'unsupported sharing value "{value}"')
        case "size" if kind == "tmpfs":
            return {"size": _size(value)}
        case "mode":
            if not re.fullmatch(r"[0-7]{1,5}", value):
                raise InvalidParameter(f"invalid value {value} for mode")
            return {"mode": int(value, 8)}
        case "uid" | "gid":
            if not re.fullmatch(r"\d{1,10}", value):
                raise InvalidParameter(f"invalid value {value} for {key}")
            return {key: int(value)}
    raise InvalidParameter(f"unexpected key '{key}' in '{key}={value}'")


def _checked(mount: Mount) -> Mount:
    if mount.kind in ("bind", "cache", "tmpfs") and not mount.target:
        raise InvalidParameter("target can't be empty")
    if mount.kind == "cache" and mount.target.strip("/") == "":
        raise InvalidParameter('invalid mount target "/"')
    if mount.kind == "secret" and not (mount.id or mount.source or mount.target):
        raise InvalidParameter("invalid secret mount. one of source, target required")
    return mount


def _truth(key: str, value: str | None) -> bool:
    text = "true" if value is None else value.lower()
    if text in ("true", "1", "t"):
        return True
    if text in ("false", "0", "f"):
        return False
    raise InvalidParameter(f"invalid value for {key}: {value}")


def _size(text: str) -> int:
    matched = _SIZE.fullmatch(text)
    if matched is None:
        raise InvalidParameter(f"invalid value for size: {text}")
    return int(matched[1]) << _UNITS[matched[2].lower()]
