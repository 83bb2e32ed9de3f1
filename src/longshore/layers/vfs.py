"""The vfs graph driver: a full copy for each layer. Slow, but works on any file system."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from longshore.errors import InvalidParameter, NotFound, System
from longshore.layers.driver import Change
from longshore.layers.extract import Extractor
from longshore.layers.idmap import IdMap
from longshore.layers.remove import remove_tree
from longshore.layers.treediff import changes_size, tree_changes


class Vfs:
    """Keeps `vfs/dir/<id>`."""

    name = "vfs"

    def __init__(self, root: Path, ids: IdMap, options: list[str]) -> None:
        if options:
            raise System(f"unknown option {options[0].partition('=')[0]} for vfs")
        self._home = root / "vfs" / "dir"
        self._ids = ids
        self._home.mkdir(mode=0o710, parents=True, exist_ok=True)

    def status(self) -> list[tuple[str, str]]:
        return []

    def create(self, id: str, parent: str | None, storage_opt: dict[str, str] | None = None) -> None:
        if storage_opt:
            raise InvalidParameter("--storage-opt is not supported for vfs")
        home = self._home / id
        if parent is None:
            home.mkdir(mode=0o755)
            home.chmod(0o755)
            os.chown(home, *self._ids.root)
            return
        if not (self._home / parent).is_dir():
            raise NotFound(f"parent layer {parent} does not exist")
        copy_tree(self._home / parent, home)

    def extractor(self, id: str) -> Extractor:
        return Extractor(self._home / id, self._ids, overlay_whiteouts=False)

    def own_files(self, id: str) -> Path:
        return self._home / id

    def populate(self, id: str, fill: Callable[[Path], None]) -> None:
        fill(self._home / id)

    def get(self, id: str, mount_label: str = "") -> Path:
        home = self._home / id
        if not home.is_dir():
            raise NotFound(f"stat {home}: no such file or directory")
        return home

    def take_over(self, id: str, source: str) -> bool:
        return False

    def put(self, id: str) -> None:
        """Nothing is ever mounted."""

    def mounted(self) -> set[str]:
        return set()

    def unmount(self, id: str) -> None:
        """Nothing is ever mounted."""

    def remove(self, id: str) -> None:
        if not id or "/" in id or id in (".", ".."):
            raise InvalidParameter(f"invalid id: {id!r}")
        doomed = self._home / f"{id.removesuffix('-removing')}-removing"
        with suppress(FileNotFoundError):
            (self._home / id).rename(doomed)
        remove_tree(doomed)

    def ids(self) -> set[str]:
        return {entry.name for entry in self._home.iterdir()}

    @contextmanager
    def diff(self, id: str, parent: str | None) -> Iterator[tuple[Path, list[Change]]]:
        mine = self._home / id
        yield mine, tree_changes(mine, self._home / parent if parent is not None else None)

    @contextmanager
    def view(self, id: str) -> Iterator[Path]:
        yield self.get(id)

    def size(self, id: str, parent: str | None) -> int:
        with self.diff(id, parent) as (mine, changes):
            return changes_size(mine, changes)

    def metadata(self, id: str) -> dict[str, str]:
        return {}


def copy_tree(source: Path, target: Path) -> None:
    """Copy with owners, modes, times, attributes, devices and hard links."""
    links: dict[int, str] = {}
    waiting = [(os.fspath(source), os.fspath(target))]
    made = []
    while waiting:
        directory, copy = waiting.pop()
        Path(copy).mkdir(0o700)
        made.append((directory, copy))
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, f"{copy}/{entry.name}"))
                else:
                    _copy_entry(entry, f"{copy}/{entry.name}", links)
    for directory, copy in reversed(made):  # what is made in them changes their times
        _copy_attributes(directory, copy, os.lstat(directory))


def _copy_entry(entry: os.DirEntry[str], target: str, links: dict[int, str]) -> None:
    found = entry.stat(follow_symlinks=False)
    kind = found.st_mode
    if found.st_nlink > 1:
        first = links.setdefault(found.st_ino, target)
        if first != target:
            os.link(first, target, follow_symlinks=False)
            return
    if stat.S_ISREG(kind):
        shutil.copyfile(entry.path, target, follow_symlinks=False)
    elif stat.S_ISLNK(kind):
        Path(target).symlink_to(Path(entry.path).readlink())
    else:
        os.mknod(target, stat.S_IFMT(kind) | 0o600, found.st_rdev)
    _copy_attributes(entry.path, target, found)


def _copy_attributes(source: str, target: str, found: os.stat_result) -> None:
    os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        Path(target).chmod(stat.S_IMODE(found.st_mode))
    try:
        for name in os.listxattr(source, follow_symlinks=False):
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    except OSError:
        pass  # the file system has none, or not these
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
