"""The records of layers on disk, in Docker's layout: `image/<driver>/layerdb`."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from longshore.linux.files import sync_directory, write_atomically
from longshore.types.numbers import decimal

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class LayerRecord(NamedTuple):
    """A read-only layer as recorded."""

    chain_id: str
    diff_id: str
    parent: str | None
    cache_id: str
    size: int


class MountRecord(NamedTuple):
    """A container's writable layer as recorded; `init_id` is "" if it has no init layer."""

    name: str
    mount_id: str
    init_id: str
    parent: str | None


class LayerDb:
    """Reads and writes the records. What is incomplete is not listed."""

    def __init__(self, root: Path) -> None:
        self._layers = root / "sha256"
        self._mounts = root / "mounts"
        self._tmp = root / "tmp"
        self._loose = root / "loose"
        for directory in (self._layers, self._mounts, self._tmp, self._loose):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def layers(self) -> list[LayerRecord]:
        """Every complete record, in no order."""
        found = (self._layer(f"sha256:{name}") for name in _names(self._layers))
        return [record for record in found if record is not None]

    def mounts(self) -> list[MountRecord]:
        """Every complete record, in no order."""
        found = (self._mount(name) for name in _names(self._mounts))
        return [record for record in found if record is not None]

    @contextmanager
    def new_layer(self) -> Iterator[Path]:
        """A directory to collect a layer's record in; gone at the end unless `commit_layer` moved it."""
        directory = self._tmp / f"write-set-{secrets.token_hex(8)}"
        directory.mkdir(mode=0o755)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def write_layer(self, directory: Path, record: LayerRecord) -> None:
        """Write a record to a directory of `new_layer`, durably."""
        write_atomically(directory / "diff", record.diff_id.encode(), 0o644)
        write_atomically(directory / "size", str(record.size).encode(), 0o644)
        write_atomically(directory / "cache-id", record.cache_id.encode(), 0o644)
        if record.parent is not None:
            write_atomically(directory / "parent", record.parent.encode(), 0o644)
        _sync_file(directory / "tar-split.json.gz")
        sync_directory(directory)

    def commit_layer(self, directory: Path, record: LayerRecord) -> None:
        """Let what `write_layer` wrote be seen. FileExistsError if the layer is recorded already."""
        try:
            directory.rename(self._path(record.chain_id))
        except OSError as exc:
            raise FileExistsError(record.chain_id) from exc
        sync_directory(self._layers)

    def tar_split(self, chain_id: str) -> Path:
        """Where the layer's tar-split lies."""
        return self._path(chain_id) / "tar-split.json.gz"

    def retire_layer(self, chain_id: str) -> Path:
        """Take the record out of sight; remove the directory returned once its files are gone."""
        # dockerd skips and cleans up names of this form.
        target = self._layers / f"{chain_id[7:]}-{secrets.token_hex(8)}-removing"
        self._path(chain_id).rename(target)
        return target

    def retired_layers(self) -> list[tuple[Path, str]]:
        """Records whose removal was cut short, with their cache ids ("" if unknown)."""
        found = [self._layers / name for name in _names(self._layers) if name.endswith("-removing")]
        return [(path, _read(path / "cache-id") or "") for path in found]

    def loosen(self, chain_ids: list[str]) -> None:
        """Note that nothing that outlives this process refers to the first; below it are the others."""
        # Not synced: what a power cut takes of it is space, until the layer is asked for again.
        (self._loose / chain_ids[0][7:]).write_text("\n".join(chain_ids))

    def settle(self, *chain_ids: str) -> None:
        """Take such notes back."""
        for chain_id in chain_ids:
            (self._loose / chain_id[7:]).unlink(missing_ok=True)

    def loose(self) -> list[list[str]]:
        """All such notes."""
        notes = [_read(self._loose / name) for name in _names(self._loose)]
        return [note.split() for note in notes if note]

    def cleanup_tmp(self) -> None:
        """Drop what unfinished registrations left."""
        for name in _names(self._tmp):
            shutil.rmtree(self._tmp / name, ignore_errors=True)

    def add_mount(self, record: MountRecord) -> None:
        """Record a writable layer durably. FileExistsError if the name is taken."""
        directory = self._mounts / record.name
        directory.mkdir(mode=0o755)
        write_atomically(directory / "init-id", record.init_id.encode(), 0o644)
        if record.parent is not None:
            write_atomically(directory / "parent", record.parent.encode(), 0o644)
        # Last, because a record without it does not count.
        write_atomically(directory / "mount-id", record.mount_id.encode(), 0o644)
        sync_directory(directory)
        sync_directory(self._mounts)

    def remove_mount(self, name: str) -> None:
        """Forget a writable layer; no error if there is no such record."""
        (self._mounts / name / "mount-id").unlink(missing_ok=True)
        shutil.rmtree(self._mounts / name, ignore_errors=True)

    def incomplete_mounts(self) -> list[str]:
        """Names whose record was cut short."""
        return [name for name in _names(self._mounts) if self._mount(name) is None]

    def _path(self, chain_id: str) -> Path:
        if not DIGEST.fullmatch(chain_id):
            raise ValueError(f"not a digest: {chain_id!r}")
        return self._layers / chain_id[7:]

    def _layer(self, chain_id: str) -> LayerRecord | None:
        if not DIGEST.fullmatch(chain_id):
            return None
        directory = self._path(chain_id)
        diff_id, size, cache_id = (_read(directory / name) for name in ("diff", "size", "cache-id"))
        length = decimal(size or "")
        if not diff_id or length is None or not cache_id or not NAME.fullmatch(cache_id):
            return None
        return LayerRecord(chain_id, diff_id, _read(directory / "parent") or None, cache_id, length)

    def _mount(self, name: str) -> MountRecord | None:
        directory = self._mounts / name
        mount_id = _read(directory / "mount-id")
        if not mount_id or not NAME.fullmatch(mount_id):
            return None
        parent = _read(directory / "parent") or None
        return MountRecord(name, mount_id, _read(directory / "init-id") or "", parent)


def _names(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()]


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sync_file(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
