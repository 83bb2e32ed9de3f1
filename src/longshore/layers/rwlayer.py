"""A container's own, writable layer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from longshore.layers.difftar import ChunkReader, diff_tar
from longshore.layers.driver import Change, GraphDriver
from longshore.layers.idmap import IdMap
from longshore.layers.layerdb import MountRecord


class RWLayer:
    """Made by `LayerStore`; every method may be called in threads."""

    def __init__(
        self, record: MountRecord, parent_cache: str | None, driver: GraphDriver, ids: IdMap
    ) -> None:
        self.name = record.name
        self.mount_id = record.mount_id
        self.init_id = record.init_id
        self.parent = record.parent
        """Chain id of the image's top layer; None if the container was made from nothing."""
        self._below = record.init_id or parent_cache
        self._driver = driver
        self._ids = ids
        self._lock = threading.Lock()
        self._mounts = 0

    def mount(self, mount_label: str = "") -> Path:
        """The root file system. Counted: while it is mounted, again just the same path.

        A mount that an earlier daemon left is taken over.
        """
        with self._lock:
            path = self._driver.get(self.mount_id, mount_label)
            self._mounts += 1
            return path

    def unmount(self) -> None:
        """Give one `mount` back; without one, take over what an earlier daemon left, and unmount it."""
        with self._lock:
            self._mounts = max(self._mounts - 1, 0)
            self._driver.put(self.mount_id)

    def is_mounted(self) -> bool:
        """Whether this daemon holds it mounted."""
        return self._mounts > 0

    def size(self) -> int:
        """Bytes of the files that differ from the image."""
        return self._driver.size(self.mount_id, self._below)

    def changes(self) -> list[Change]:
        """What the container changed, in order of path."""
        with self._driver.diff(self.mount_id, self._below) as (_, changes):
            return changes

    def tar_stream(self) -> BinaryIO:
        """The changes as the archive of a layer: deletions as `.wh.` files."""
        return ChunkReader(self._archive())

    def metadata(self) -> dict[str, str]:
        """`GraphDriver.Data` of docker inspect."""
        return self._driver.metadata(self.mount_id)

    def _archive(self) -> Iterator[bytes]:
        with self._driver.diff(self.mount_id, self._below) as (root, changes):
            yield from diff_tar(root, changes, self._ids)
