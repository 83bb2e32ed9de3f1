"""The directories of local volumes: made and removed as a whole, whenever the daemon is killed."""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from longshore.errors import Conflict, InvalidParameter, System
from longshore.layers.remove import remove_tree
from longshore.linux.files import TEMPORARY
from longshore.linux.mount import mountinfo
from longshore.linux.projects import DirectoryQuotas
from longshore.types.timestamp import SECOND, rfc3339_nano
from longshore.volumes import record
from longshore.volumes.database import VolumeMetadata
from longshore.volumes.local import LocalMount, check_options, size_limit
from longshore.volumes.record import VolumeRecord

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class VolumeDirectories:
    """`<data root>/volumes`. Methods block."""

    def __init__(self, root: Path, owner: tuple[int, int]) -> None:
        """`owner` are the host ids of containers' root, to whom new volumes belong."""
        self._root = root
        self._owner = owner
        root.mkdir(mode=0o701, parents=True, exist_ok=True)
        self._quotas = DirectoryQuotas(root, lambda root: (each / "_data" for each in _volumes(root)))

    def data(self, name: str) -> Path:
        """Where the content is."""
        return self._root / name / "_data"

    def restore(self, theirs: dict[str, VolumeMetadata]) -> Iterator[VolumeRecord]:
        """Every volume there is; what was being made or removed when a daemon was killed goes."""
        for leftover in self._root.glob(f"{TEMPORARY}*"):
            if leftover.is_dir():
                remove_tree(leftover)
        for directory in _volumes(self._root):
            try:
                yield record.load(directory, theirs.get(directory.name))
            except (OSError, msgspec.MsgspecError) as exc:
                log.error("the volume in %s cannot be read, and is left alone: %s", directory, exc)

    def make(self, name: str, options: dict[str, str], labels: dict[str, str]) -> VolumeRecord:
        """A new volume. Raises InvalidParameter for options that cannot be, System."""
        try:
            check_options(options)
            size = size_limit(options)
            if size and not self._counts():
                raise InvalidParameter("quota size requested but no quota support")
        except InvalidParameter as exc:
            raise InvalidParameter(f"create {name}: {exc}") from None
        entry = VolumeRecord(
            name=name,
            created=rfc3339_nano(int(time.time()) * SECOND),
            labels=labels or None,
            options=options,
        )
        making = self._aside()
        try:
            making.mkdir(mode=0o701)
            try:
                (making / "_data").mkdir()
                (making / "_data").chmod(0o755)
                os.chown(making / "_data", *self._owner)
                if size:
                    self._quotas.limit(making / "_data", size)
                record.save(making, entry)
                making.rename(self._root / name)
            except BaseException:
                remove_tree(making)
                raise
        except OSError as exc:
            raise System(f"create {name}: {exc}") from exc
        return entry

    def limit(self, entry: VolumeRecord) -> None:
        """Have the limit that the volume was made with. Raises System."""
        size = size_limit(entry.options)
        if size:
            try:
                self._quotas.limit(self.data(entry.name), size)
            except OSError as exc:
                raise System(f"size quota requested for volume but no quota support: {exc.strerror}") from exc

    def delete(self, name: str) -> None:
        """Remove the volume with its content. Raises Conflict while anything is mounted in it, System."""
        removing = self._aside()
        try:
            with suppress(FileNotFoundError):
                inside = f"{self._root.resolve() / name}/"
                if LocalMount({}, self.data(name)).is_mounted() or any(
                    point.target.startswith(inside) for point in mountinfo()
                ):
                    raise Conflict(f"remove {name}: volume has active mounts")
                (self._root / name).rename(removing)
                try:
                    remove_tree(removing / "_data")  # The record last: what cannot go is a volume still.
                    remove_tree(removing)
                except OSError:
                    removing.rename(self._root / name)
                    raise
        except OSError as exc:
            raise System(f"remove {name}: {exc}") from exc

    def _counts(self) -> bool:
        try:
            self._quotas.check()
        except OSError:
            return False
        return True

    def _aside(self) -> Path:
        # No volume can have such a name, nor does dockerd's local driver take one.
        return self._root / f"{TEMPORARY}{secrets.token_hex(8)}"


def check_name(name: str) -> None:
    """Raises InvalidParameter for what is no name of a local volume."""
    if _NAME.fullmatch(name):
        return
    if len(name) == 1:
        raise InvalidParameter(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    raise InvalidParameter(
        f'create {name}: "{name}" includes invalid characters for a local volume name, only '
        '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
    )


def _volumes(root: Path) -> Iterator[Path]:
    for directory in root.iterdir():
        is_ours = (
            directory.is_dir() and not directory.is_symlink() and not directory.name.startswith(TEMPORARY)
        )
        if is_ours and (directory / "_data").is_dir():
            yield directory
