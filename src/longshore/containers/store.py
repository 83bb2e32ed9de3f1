"""Every container the daemon knows: in memory by id, name and prefix, on disk a directory each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from longshore.containers.container import Container
from longshore.containers.record import ContainerRecord
from longshore.errors import Conflict, EngineError, InvalidParameter, NotFound
from longshore.linux.files import write_atomically
from longshore.types import codec
from longshore.types.container import HostConfig

NAME = re.compile(r"^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$")

log = logging.getLogger(__name__)


class ContainerStore:
    """The containers under `<data-root>/containers`. Names are reserved before anything is made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_id: dict[str, Container] = {}
        self._ids_by_name: dict[str, str] = {}

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, name_or_id: str) -> Container:
        """Find by full id, then by name, then by an unambiguous prefix of an id.

        Raises NotFound, or InvalidParameter for a prefix that several share.
        """
        if not name_or_id:
            raise InvalidParameter("No container name or ID supplied")
        if name_or_id in self._by_id:
            return self._by_id[name_or_id]
        by_name = self._ids_by_name.get(name_or_id.removeprefix("/"))
        if by_name in self._by_id:
            return self._by_id[by_name]
        matches = [id for id in self._by_id if id.startswith(name_or_id)]
        if len(matches) == 1:
            return self._by_id[matches[0]]
        if matches:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {name_or_id}")
        raise NotFound(f"No such container: {name_or_id}")

    def find(self, id: str) -> Container | None:
        """The container of this full id, or None."""
        return self._by_id.get(id)

    def reserve_name(self, name: str, id: str) -> None:
        """Take `name` for `id`. Raises InvalidParameter for a bad name, Conflict for one in use."""
        if not NAME.match(name):
            raise InvalidParameter(
                f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )
        bare = name.removeprefix("/")
        holder = self._ids_by_name.setdefault(bare, id)
        if holder != id:
            raise Conflict(
                f'Conflict. The container name "/{bare}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def name_is_free(self, name: str) -> bool:
        """Whether nobody holds the name."""
        return name not in self._ids_by_name

    def release_name(self, name: str, id: str) -> None:
        """Give `name` back if `id` holds it."""
        bare = name.removeprefix("/")
        if self._ids_by_name.get(bare) == id:
            del self._ids_by_name[bare]

    def add(self, container: Container) -> None:
        """Let the container be found."""
        self._by_id[container.id] = container

    def forget(self, container: Container) -> None:
        """Drop the container and its name."""
        self._by_id.pop(container.id, None)
        self.release_name(container.name, container.id)

    async def save(self, container: Container) -> None:
        """Write what changed of the container since it was last written. Raises OSError."""
        async with container.save_lock:
            if container.removed:
                return
            files = (codec.encode(container.record), codec.encode(container.host_config))
            if files == container.saved:
                return
            # Whatever a failed write leaves, the next save writes all of it.
            before, container.saved = container.saved, (b"", b"")
            await asyncio.to_thread(_write_files, container.root, files, before)
            container.saved = files

    async def load(self) -> dict[str, str]:
        """Read every container from disk. Returns the ids of those that cannot be read, and why."""
        found, problems = await asyncio.to_thread(_read_all, self.root)
        for container in found:
            try:
                self.reserve_name(container.name, container.id)
            except EngineError as exc:
                problems[container.id] = str(exc)
                continue
            self.add(container)
        return problems


def _write_files(root: Path, files: tuple[bytes, bytes], before: tuple[bytes, bytes]) -> None:
    record, host_config = files
    if host_config != before[1]:
        write_atomically(root / "hostconfig.json", host_config, 0o600)
    if record != before[0]:
        write_atomically(root / "config.v2.json", record, 0o600)


def _read_all(root: Path) -> tuple[list[Container], dict[str, str]]:
    found: list[Container] = []
    problems: dict[str, str] = {}
    with contextlib.suppress(FileNotFoundError):
        for directory in sorted(root.iterdir()):
            if not re.fullmatch(r"[0-9a-f]{64}", directory.name):
                continue
            if not (directory / "config.v2.json").exists():
                # A create that was cut off before the record was written: nobody was told of it.
                shutil.rmtree(directory, ignore_errors=True)
                continue
            try:
                found.append(_read(directory))
            except Exception as exc:  # whatever is damaged, the others come up
                problems[directory.name] = str(exc) or type(exc).__name__
    return found, problems


def _read(directory: Path) -> Container:
    record = codec.decode((directory / "config.v2.json").read_bytes(), ContainerRecord)
    if directory.name != record.ID:
        raise InvalidParameter(f"the record is of container {record.ID}")
    record.State.RemovalInProgress = False  # Whoever was removing it is gone; `Dead` says that it has to go.
    try:
        host_config = codec.decode((directory / "hostconfig.json").read_bytes(), HostConfig)
    except FileNotFoundError:
        if not record.State.Dead:
            raise
        host_config = HostConfig()  # Its removal was cut off, and is about to go on.
    return Container(record, host_config, directory)
