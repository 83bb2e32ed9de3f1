"""Where plug-ins are: sockets in one directory, and files that name an address in two others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from longshore.errors import NotFound
from longshore.plugins.client import Plugin, TlsSettings

SOCKETS = Path("/run/docker/plugins")
SPECIFICATIONS = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class _Specification(msgspec.Struct):
    """A `.json` file."""

    Addr: str
    Name: str = ""
    TLSConfig: TlsSettings | None = None


def plugin_of(name: str, sockets: Path = SOCKETS, specifications: Sequence[Path] = SPECIFICATIONS) -> Plugin:
    """The plug-in of this name, not asked for anything yet. Raises NotFound."""
    if _NAME.fullmatch(name):
        for path in _socket_places(name, sockets):
            if path.is_socket():
                return Plugin(name, f"unix://{path}")
        for path in _specification_places(name, specifications):
            found = _read(name, path)
            if found is not None:
                return found
    raise NotFound(f'plugin "{name}" not found')


def plugin_names(sockets: Path = SOCKETS, specifications: Sequence[Path] = SPECIFICATIONS) -> list[str]:
    """Every name there is a socket or a specification for."""
    found = {path.stem for path in (*_files(sockets, ".sock"), *_below(sockets))}
    for directory in specifications:
        for ending in (".spec", ".json"):
            found |= {path.stem for path in _files(directory, ending)}
    return sorted(name for name in found if _NAME.fullmatch(name))


def _socket_places(name: str, sockets: Path) -> Iterator[Path]:
    yield sockets / f"{name}.sock"
    yield sockets / name / f"{name}.sock"


def _specification_places(name: str, directories: Sequence[Path]) -> Iterator[Path]:
    for directory in directories:
        for where in (directory, directory / name):
            yield where / f"{name}.spec"
            yield where / f"{name}.json"


def _read(name: str, path: Path) -> Plugin | None:
    try:
        content = path.read_bytes()
        if path.suffix == ".spec":
            return Plugin(name, content.decode().strip())
        described = msgspec.json.decode(content, type=_Specification)
        return Plugin(described.Name or name, described.Addr, described.TLSConfig)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return None


def _files(directory: Path, ending: str) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if path.suffix == ending]
    except OSError:
        return []


def _below(sockets: Path) -> list[Path]:
    try:
        inner = [path / f"{path.name}.sock" for path in sockets.iterdir() if path.is_dir()]
        return [path for path in inner if path.is_socket()]
    except OSError:
        return []
