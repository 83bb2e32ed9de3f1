"""What an overlayfs upper directory says about changes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from longshore.layers.driver import ADDED, DELETED, MODIFIED, Change
from longshore.layers.extract import OVERLAY_OPAQUE
from longshore.layers.treediff import entries_of, with_parents

REDIRECT, METACOPY = "trusted.overlay.redirect", "trusted.overlay.metacopy"
"""Where a renamed directory was, and that a file's data is still in a lower layer."""


_Pair = tuple[str, str, str | None, bool]


class NotPlain(Exception):
    """The directory does not hold all that changed: overlayfs wrote it with `redirect_dir` or `metacopy`."""


def overlay_changes(upper: Path, below: Path | None) -> list[Change]:
    """Compare an upper directory with the file system that it was mounted over. In order of path.

    Directories that were only copied up, with nothing about themselves changed, are listed as modified, for
    something in them changed; that is how `docker diff` answers. Raises NotPlain.
    """
    found: list[Change] = []
    waiting = [(os.fspath(upper), "", None if below is None else os.fspath(below), False)]
    while waiting:
        _compare(*waiting.pop(), found, waiting)
    return with_parents(found)


def plain_size(upper: Path) -> int:
    """Bytes of all files in an upper directory, as `tree_size` counts. Raises NotPlain."""
    return tree_size(upper, whole=True)


def tree_size(root: Path, *, whole: bool = False) -> int:
    """Bytes of all files below, links counted once and directories not at all.

    Raises NotPlain, if `whole`, where files are elsewhere.
    """
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [os.fspath(root)]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if whole:
                            require_plain(entry.path, is_directory=True)
                        pending.append(entry.path)
                        continue
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if found.st_nlink > 1:
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                total += found.st_size
    return total


def is_plain(upper: Path) -> bool:
    """Whether an upper directory holds all that changed, and would on top of other layers as well."""
    try:
        for directory, names, files in os.walk(upper):
            for name in names:
                if not os.path.islink(f"{directory}/{name}"):  # noqa: PTH114
                    require_plain(f"{directory}/{name}", is_directory=True)
            for name in files:
                require_plain(f"{directory}/{name}", is_directory=False)
    except NotPlain:
        return False
    return True


def is_metacopy(file: int) -> bool:
    """Whether the data of an open file is in a lower layer."""
    try:
        return METACOPY in os.listxattr(file)
    except OSError:
        return False


def require_plain(path: str, *, is_directory: bool) -> None:
    """Raises NotPlain for a directory that is elsewhere or hides by attributes, and a file without data."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return
    if not names:
        return
    if not is_directory:
        if METACOPY in names:
            raise NotPlain
    elif REDIRECT in names or (OVERLAY_OPAQUE in names and _opacity(path) == b"x"):
        # "x": files in it may be whiteouts by an attribute. Only programs write that, no kernel.
        raise NotPlain


def is_whiteout(found: os.stat_result) -> bool:
    """Whether a file in an upper directory says that the one below is deleted."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _opacity(directory: str) -> bytes:
    try:
        return os.getxattr(directory, OVERLAY_OPAQUE, follow_symlinks=False)
    except OSError:
        return b""


def _compare(
    directory: str, prefix: str, below: str | None, hidden: bool, changes: list[Change], waiting: list[_Pair]
) -> None:
    """`hidden`: nothing of `below` shows through, though it is what `directory` replaces."""
    found = entries_of(directory)
    if hidden and below is not None:
        gone = [name for name, old in entries_of(below).items() if name not in found and not is_whiteout(old)]
        changes += [Change(f"{prefix}/{name}", DELETED) for name in gone]
    for name, mine in found.items():
        path, inside = f"{directory}/{name}", f"{prefix}/{name}"
        if is_whiteout(mine):
            changes.append(Change(inside, DELETED))
            continue
        old = _below(below, name)
        if stat.S_ISDIR(mine.st_mode):
            require_plain(path, is_directory=True)
            lower = f"{below}/{name}" if old is not None and stat.S_ISDIR(old.st_mode) else None
            waiting.append((path, inside, lower, hidden or _opacity(path) == b"y"))
        elif stat.S_ISREG(mine.st_mode):
            require_plain(path, is_directory=False)
        if old is None:
            changes.append(Change(inside, ADDED))
        elif not _same_directory(mine, old):
            changes.append(Change(inside, MODIFIED))


def _below(below: str | None, name: str) -> os.stat_result | None:
    if below is None:
        return None
    try:
        found = os.lstat(f"{below}/{name}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    # In the lowest layer, which is seen as it is: an image may delete what never was.
    return None if is_whiteout(found) else found


def _same_directory(mine: os.stat_result, below: os.stat_result) -> bool:
    return (
        stat.S_ISDIR(mine.st_mode)
        and mine.st_mode == below.st_mode
        and (mine.st_uid, mine.st_gid) == (below.st_uid, below.st_gid)
    )
