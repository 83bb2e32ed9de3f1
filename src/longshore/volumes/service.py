"""Named volumes of the local driver: made, found, mounted, counted, removed.

On disk as dockerd's local driver keeps them: `<data root>/volumes/<name>/_data`, with `opts.json` for those
that mount something. Labels lie in `longshore.json` beside; dockerd keeps them in a database, which is told.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import msgspec

from longshore.errors import Conflict, InvalidParameter, NotFound, System
from longshore.types.filters import (
    Filters,
    boolean_filter,
    check_filters,
    exactly,
    has_labels,
    labels_match,
    matches,
)
from longshore.types.timestamp import SECOND, rfc3339_nano
from longshore.types.volume import UsageData, Volume
from longshore.volumes import record
from longshore.volumes.database import VolumeDatabase, VolumeMetadata
from longshore.volumes.local import LocalMount, check_options

ANONYMOUS_LABEL = "com.docker.volume.anonymous"

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class VolumeService:
    """All volumes below one directory. Methods block on the disk only; call the slow ones in a thread."""

    def __init__(
        self,
        root: Path,
        on_event: Callable[[str, str, dict[str, str]], None] | None = None,
        owner: tuple[int, int] = (0, 0),
    ) -> None:
        """`root` is `<data root>/volumes`; new volumes belong to `owner`, the host ids of containers' root.

        `on_event(action, name, attributes)` hears of create, mount, unmount and destroy.
        """
        self._root = root
        self._owner = owner
        self._on_event = on_event or (lambda action, name, attributes: None)
        self._records: dict[str, record.VolumeRecord] = {}
        self._references: dict[str, set[str]] = {}
        self._mounts: dict[str, LocalMount] = {}
        self._users: set[tuple[str, str]] = set()
        """(volume, container) of those that mounted it and have not given it back."""
        root.mkdir(mode=0o701, parents=True, exist_ok=True)
        self._database = VolumeDatabase(root / "metadata.db")
        theirs = self._database.open()
        for directory in root.iterdir():
            if directory.is_dir() and not directory.is_symlink() and (directory / "_data").is_dir():
                self._adopt(directory, theirs.get(directory.name))
        self._database.save_soon(self._metadata)

    def create(
        self,
        name: str = "",
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        ref: str = "",
    ) -> Volume:
        """Make a volume, or answer the one that exists under the name. No name makes an anonymous one.

        `ref`, a container's id, is counted as using it at once. Raises InvalidParameter for a bad name or
        option, NotFound for a driver other than `local`, Conflict if it exists with other options.
        """
        if driver not in ("", "local"):
            raise NotFound(
                f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found'
            )
        all_labels = dict(labels or {})
        if not name:
            name = token_hex(32)
            all_labels[ANONYMOUS_LABEL] = ""
        if not _NAME.fullmatch(name):
            if len(name) == 1:
                raise InvalidParameter(
                    f"create {name}: volume name is too short, names should be at least two alphanumeric "
                    "characters"
                )
            raise InvalidParameter(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use '
                "absolute path"
            )
        present = self._records.get(name)
        if present is None:
            present = self._make(name, dict(options or {}), all_labels)
            self._database.save_soon(self._metadata)
            self._on_event("create", name, {"driver": "local"})
        elif options and dict(options) != present.options:
            raise Conflict(f"create {name}: volume already exists with different options")
        if ref:
            self.reference(name, ref)
        return self._describe(present)

    def get(self, name: str) -> Volume:
        """Raises NotFound."""
        return self._describe(self._record(name))

    def list(self, filters: Filters | None = None) -> list[Volume]:
        """All volumes that match `filters` (dangling, driver, label, name), by name.

        Raises InvalidParameter for another filter or a value of dangling that is no boolean.
        """
        filters = filters or {}
        check_filters(filters, ("dangling", "driver", "label", "name"))
        dangling = boolean_filter(filters, "dangling")
        return [
            self._describe(entry)
            for name, entry in sorted(self._records.items())
            if exactly(filters, "driver", "local")
            and matches(filters, "name", name)
            and has_labels(entry.labels or {}, filters.get("label", ()))
            and (dangling is None or dangling != bool(self.references(name)))
        ]

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and its content. With `force` a missing one is no error.

        Raises NotFound, or Conflict while containers refer to it.
        """
        if force and name not in self._records:
            return
        entry = self._record(name)
        if references := self.references(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(sorted(references))}]")
        if name in self._mounts:
            raise Conflict(f"remove {name}: volume has active mounts")
        del self._records[name]
        try:
            shutil.rmtree(self._root / name)
        except FileNotFoundError:
            pass
        except OSError as exc:
            self._records[name] = entry
            raise System(f"remove {name}: {exc}") from exc
        self._database.save_soon(self._metadata)
        self._on_event("destroy", name, {"driver": "local"})

    def prune(self, filters: Filters | None = None) -> tuple[Sequence[str], int]:
        """Remove what no container refers to: anonymous volumes, or all with the filter `all`.

        Filters: all, label, label!. Returns names and bytes freed. Raises InvalidParameter.
        """
        filters = filters or {}
        check_filters(filters, ("all", "label", "label!"))
        everything = boolean_filter(filters, "all")
        deleted, freed = [], 0
        for name, entry in sorted(self._records.items()):
            labels = entry.labels or {}
            if self.references(name) or not (everything or ANONYMOUS_LABEL in labels):
                continue
            if not labels_match(filters, labels):
                continue
            size = 0 if entry.options else directory_size(self._data(name))
            with suppress(Conflict, NotFound):  # taken or removed in between
                self.remove(name)
                deleted.append(name)
                freed += size
        return deleted, freed

    def reference(self, name: str, ref: str) -> None:
        """Count `ref`, a container's id, as using the volume. Raises NotFound."""
        self._record(name)
        self._references.setdefault(name, set()).add(ref)

    def release(self, name: str, ref: str) -> None:
        """Take a reference back; one that is not held is no error."""
        holders = self._references.get(name)
        if holders is not None:
            holders.discard(ref)
            if not holders:
                del self._references[name]

    def references(self, name: str) -> frozenset[str]:
        """The containers that use the volume, running or not."""
        return frozenset(self._references.get(name, ()))

    def mount(self, name: str, ref: str, attributes: Mapping[str, str] | None = None) -> Path:
        """Where the content is, mounted if the volume has options. Idempotent for each `ref`.

        `attributes` tell the event more; without any there is none: the daemon itself looks inside.
        Raises NotFound, or System if the mount fails.
        """
        entry = self._record(name)
        if entry.options:
            mounted = self._mounts.get(name) or LocalMount(entry.options, self._data(name))
            mounted.acquire(name, ref)
            self._mounts[name] = mounted
        self._users.add((name, ref))
        if attributes is not None:
            self._on_event("mount", name, {"driver": "local", "container": ref, **attributes})
        return self._data(name)

    def unmount(self, name: str, ref: str, *, quiet: bool = False) -> None:
        """Take back what `mount` gave to `ref`; the last one unmounts. Not being mounted is no error.

        `quiet`: without an event.
        """
        mounted = self._mounts.get(name)
        if mounted is not None and mounted.release(ref):
            del self._mounts[name]
        if (name, ref) in self._users and not quiet:
            self._on_event("unmount", name, {"driver": "local", "container": ref})
        self._users.discard((name, ref))

    def path(self, name: str) -> Path:
        """The volume's directory on the host, mounted or not. Raises NotFound."""
        self._record(name)
        return self._data(name)

    def usage(self, name: str) -> UsageData:
        """Size and references, for `docker system df`. Walks the whole volume: call it in a thread."""
        entry = self._record(name)
        size = -1 if entry.options else directory_size(self._data(name))
        return UsageData(Size=size, RefCount=len(self.references(name)))

    def close(self) -> None:
        """Let another daemon have the volumes. Blocks."""
        self._database.close(self._metadata)

    def _make(self, name: str, options: dict[str, str], labels: dict[str, str]) -> record.VolumeRecord:
        try:
            check_options(options)
        except InvalidParameter as exc:
            raise InvalidParameter(f"create {name}: {exc}") from None
        directory = self._root / name
        entry = record.VolumeRecord(
            name=name,
            created=rfc3339_nano(int(time.time()) * SECOND),
            labels=labels or None,
            options=options,
        )
        try:
            directory.mkdir(mode=0o701)
            try:
                (directory / "_data").mkdir()
                (directory / "_data").chmod(0o755)
                os.chown(directory / "_data", *self._owner)
                record.save(directory, entry)
            except BaseException:
                shutil.rmtree(directory, ignore_errors=True)
                raise
        except OSError as exc:
            raise System(f"create {name}: {exc}") from exc
        self._records[name] = entry
        return entry

    def _metadata(self) -> Iterable[VolumeMetadata]:
        for entry in list(self._records.values()):
            yield VolumeMetadata(entry.name, "local", entry.labels, entry.options or None)

    def _adopt(self, directory: Path, theirs: VolumeMetadata | None) -> None:
        with suppress(OSError, msgspec.MsgspecError):
            entry = record.load(directory, theirs)
            self._records[entry.name] = entry
            if entry.options:
                mounted = LocalMount(entry.options, self._data(entry.name))
                if mounted.is_mounted():  # left by a daemon that died: its containers may still run
                    self._mounts[entry.name] = mounted

    def _record(self, name: str) -> record.VolumeRecord:
        try:
            return self._records[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    def _data(self, name: str) -> Path:
        return self._root / name / "_data"

    def _describe(self, entry: record.VolumeRecord) -> Volume:
        return Volume(
            CreatedAt=entry.created,
            Labels=entry.labels,
            Mountpoint=str(self._data(entry.name)),
            Name=entry.name,
            Options=entry.options or None,
        )


def directory_size(path: Path) -> int:
    """Bytes of the files below `path`, hard links counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for directory, _, files in path.walk() if hasattr(path, "walk") else _walk(path):
        for file in files:
            with suppress(OSError):
                status = (directory / file).lstat()
                if status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                total += status.st_size
    return total


def _walk(path: Path) -> Iterable[tuple[Path, list[str], list[str]]]:
    for directory, directories, files in os.walk(path):
        yield Path(directory), directories, files
