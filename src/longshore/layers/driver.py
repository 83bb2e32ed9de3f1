"""What every graph driver can do, and which driver to use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from longshore.errors import System
from longshore.layers.extract import Extractor
from longshore.layers.idmap import IdMap

MODIFIED, ADDED, DELETED = 0, 1, 2


class Change(NamedTuple):
    """A path that differs from the layer below: MODIFIED, ADDED or DELETED, numbered as in the API."""

    path: str
    kind: int


class DriverNotSupported(System):
    """Not on this machine, or not on this file system: another driver may do."""

    def __init__(self, name: str, why: str = "") -> None:
        super().__init__(f"error initializing graphdriver: {why or f'driver not supported: {name}'}")


class GraphDriver(Protocol):
    """Keeps file system layers by id, each with at most one parent. Every method may be called in threads."""

    name: str

    def status(self) -> list[tuple[str, str]]:
        """Rows for `docker info`."""

    def create(self, id: str, parent: str | None, storage_opt: dict[str, str] | None = None) -> None:
        """Make an empty layer on top of `parent`. Raises InvalidParameter for options it does not know."""

    def extractor(self, id: str) -> Extractor:
        """To fill a new layer from an archive."""

    def own_files(self, id: str) -> Path:
        """A directory that holds (at least) the files the layer itself brought."""

    def populate(self, id: str, fill: Callable[[Path], None]) -> None:
        """Let `fill` write into the layer as seen over its parents."""

    def get(self, id: str, mount_label: str = "") -> Path:
        """Make the layer's file system available. Counted; each `get` needs its `put`."""

    def take_over(self, id: str, source: str) -> bool:
        """Move the files of the layer `source`, which nobody has mounted, into the new layer `id`.

        False if this driver cannot do that without copying. `source` is empty afterwards, then.
        """

    def put(self, id: str) -> None:
        """Give one `get` back; the last one unmounts."""

    def mounted(self) -> set[str]:
        """Ids that are mounted now, whoever mounted them."""

    def unmount(self, id: str) -> None:
        """Unmount whatever the count says; for mounts that nobody owns any more."""

    def remove(self, id: str) -> None:
        """Remove the layer; it is no error if it does not exist, or only half of it."""

    def ids(self) -> set[str]:
        """Every layer there is, half-made ones included."""

    def diff(self, id: str, parent: str | None) -> AbstractContextManager[tuple[Path, list[Change]]]:
        """A directory with the files that the layer adds and modifies, and all it changes, in order of path.

        The directory is the layer's own (`own_files`) unless that does not hold all of them.
        """

    def view(self, id: str) -> AbstractContextManager[Path]:
        """The layer's file system, to read for a while; not counted as `get` is."""

    def size(self, id: str, parent: str | None) -> int:
        """Bytes of the files that differ from the parent."""

    def metadata(self, id: str) -> dict[str, str]:
        """`GraphDriver.Data` of docker inspect."""


_OTHERS = ("fuse-overlayfs", "btrfs", "zfs", "aufs", "overlay", "devicemapper")
"""dockerd's, which this engine has not."""


def open_driver(root: Path, name: str, ids: IdMap, options: list[str]) -> GraphDriver:
    """The driver called `name`, or, for "", the one this data root has in use, or else the best that works.

    Chosen as dockerd does: one that was used before is used again or nothing is, since all images and
    containers are in it; but vfs, whatever is in it, only where there is no other way. Raises System.
    """
    from longshore.layers.overlay2 import Overlay2
    from longshore.layers.vfs import Vfs

    kinds: dict[str, type[Overlay2] | type[Vfs]] = {"overlay2": Overlay2, "vfs": Vfs}
    if name:
        if name not in kinds:
            raise DriverNotSupported(name)
        return kinds[name](root, ids, options)
    used = [known for known in ("overlay2", *_OTHERS) if _holds_layers(root / known)]
    if len(used) > 1:
        raise System(
            f"error initializing graphdriver: {root} contains several valid graphdrivers: {', '.join(used)}; "
            "cleanup or explicitly choose storage driver (-s <DRIVER>)"
        )
    if used and used[0] not in kinds:
        raise System(f"error initializing graphdriver: prior storage driver {used[0]}: driver not supported")
    try:
        return Overlay2(root, ids, options)
    except DriverNotSupported:
        if used:
            raise
        return Vfs(root, ids, options)


def _holds_layers(directory: Path) -> bool:
    try:
        return any(directory.iterdir())
    except OSError:
        return False
