"""Records on disk, one JSON file each, never seen half written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from longshore.linux.files import remove_temporaries, write_atomically

Record = TypeVar("Record", bound=msgspec.Struct)


class Store:
    """The records of one controller."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.changed: Callable[[str], None] = lambda _: None
        """Called with the kind of what was saved or deleted, in the same thread."""

    def open(self) -> None:
        """Make the directory, and remove what a crash left half written. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_temporaries(self._directory)

    def save(self, kind: str, id: str, record: msgspec.Struct, *, durable: bool) -> None:
        """Write a record. Blocks; raises OSError.

        `durable` records outlive a power cut. Those that describe kernel state need not: that state goes
        with the machine, so they must only outlive this process, and a sync would cost more than a start.
        """
        content = msgspec.json.encode(record, enc_hook=str)
        write_atomically(self._path(kind, id), content, durable=durable)
        self.changed(kind)

    def delete(self, kind: str, id: str) -> None:
        """Delete a record, if there is one."""
        self._path(kind, id).unlink(missing_ok=True)
        self.changed(kind)

    def load(self, kind: str, type: type[Record]) -> list[Record]:
        """All records of a kind; files that are no record of it are passed over."""
        found: list[Record] = []
        for path in sorted(self._directory.glob(f"{kind}-*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=type, dec_hook=_construct))
            except msgspec.MsgspecError:
                path.rename(path.with_suffix(".broken"))
        return found

    def _path(self, kind: str, id: str) -> Path:
        if not id.isalnum():
            raise ValueError(f"not an id: {id!r}")
        return self._directory / f"{kind}-{id}.json"


def _construct(type: type[Any], value: Any) -> Any:
    return type(value)
