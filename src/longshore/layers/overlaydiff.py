"""What an overlayfs upper directory says about changes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from longshore.errors import System
from longshore.layers.driver import ADDED, DELETED, MODIFIED, Change
from longshore.layers.extract import OVERLAY_OPAQUE

REDIRECT, METACOPY = "trusted.overlay.redirect", "trusted.overlay.metacopy"
"""Where a renamed directory was, and that a file's data is still in a lower layer."""


def overlay_changes(upper: Path, lowers: list[Path]) -> list[Change]:
    """Compare an upper directory with the lower ones, topmost first. In order of path.

    Directories that were only copied up, with nothing about themselves changed, are listed as modified, for
    something in them changed; that is how `docker diff` answers. Raises System for what overlayfs wrote with
    features that Docker's layers do not have: an upper directory then does not hold all that changed.
    """
    changes: list[Change] = []
    _compare(upper, "", lowers, False, changes)
    changes.sort()
    return changes


def tree_size(root: Path) -> int:
    """Bytes of all files below, links counted once and directories not at all."""
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


def is_whiteout(found: os.stat_result) -> bool:
    """Whether a file in an upper directory says that the one below is deleted."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(directory: str | Path) -> bool:
    """Whether a directory in an upper directory hides all below."""
    try:
        return os.getxattr(directory, OVERLAY_OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _compare(directory: Path, prefix: str, lowers: list[Path], hidden: bool, changes: list[Change]) -> None:
    """`hidden`: nothing of the lower directories shows through, though it is what `directory` replaces."""
    with os.scandir(directory) as entries:
        found = {entry.name: (entry.path, entry.stat(follow_symlinks=False)) for entry in entries}
    if hidden:
        gone = {name for lower in lowers for name in _names(lower)} - found.keys()
        changes += [Change(f"{prefix}/{name}", DELETED) for name in gone if _below(lowers, name)]
    for name, (path, mine) in found.items():
        inside = f"{prefix}/{name}"
        if is_whiteout(mine):
            changes.append(Change(inside, DELETED))
            continue
        below = _below(lowers, name)
        before = len(changes)
        _refuse_foreign(path, inside, mine)
        if stat.S_ISDIR(mine.st_mode):
            _compare(Path(path), inside, _narrow(lowers, name), hidden or is_opaque(path), changes)
        if below is None:
            changes.append(Change(inside, ADDED))
        elif len(changes) > before or not _same_directory(mine, below):
            changes.append(Change(inside, MODIFIED))


def _refuse_foreign(path: str, inside: str, mine: os.stat_result) -> None:
    """Another daemon may have run the container, on a kernel that had these features on by default."""
    if stat.S_ISDIR(mine.st_mode):
        feature, attribute = "redirect_dir", REDIRECT
    elif stat.S_ISREG(mine.st_mode) and mine.st_size and not mine.st_blocks:
        feature, attribute = "metacopy", METACOPY
    else:
        return
    try:
        os.getxattr(path, attribute, follow_symlinks=False)
    except OSError:
        return
    raise System(
        f"the changes cannot be told: {inside} was written by overlayfs with {feature}=on; "
        "run the container's program on a copy of its files (docker export) instead"
    )


def _below(lowers: list[Path], name: str) -> os.stat_result | None:
    for lower in lowers:
        try:
            found = os.lstat(lower / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        return None if is_whiteout(found) else found
    return None


def _names(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _narrow(lowers: list[Path], name: str) -> list[Path]:
    """The directories `name` of the lowers, down to the first that hides the rest."""
    narrowed: list[Path] = []
    for lower in lowers:
        try:
            found = os.lstat(lower / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(found.st_mode):
            break
        narrowed.append(lower / name)
        if is_opaque(lower / name):
            break
    return narrowed


def _same_directory(mine: os.stat_result, below: os.stat_result) -> bool:
    return (
        stat.S_ISDIR(mine.st_mode)
        and mine.st_mode == below.st_mode
        and (mine.st_uid, mine.st_gid) == (below.st_uid, below.st_gid)
    )
