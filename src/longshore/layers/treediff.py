"""Comparing two whole trees: right for every driver, and as slow as they are large."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from longshore.layers.driver import ADDED, DELETED, MODIFIED, Change
from longshore.linux import xattr

_Pair = tuple[str, str | None, str]


def tree_changes(mine: Path, below: Path | None) -> list[Change]:
    """What makes the tree `below` into `mine`, in order of path; None is an empty one."""
    found: list[Change] = []
    waiting = [(os.fspath(mine), None if below is None else os.fspath(below), "")]
    while waiting:
        _compare(*waiting.pop(), found, waiting)
    return with_parents(found)


def with_parents(found: list[Change]) -> list[Change]:
    """In order of path, and with the directories above, which have changed since something in them has."""
    kinds = {change.path: change.kind for change in found}
    for path in list(kinds):
        while (path := path.rpartition("/")[0]) and path not in kinds:
            kinds[path] = MODIFIED
    return [Change(path, kinds[path]) for path in sorted(kinds)]


def entries_of(directory: str) -> dict[str, os.stat_result]:
    """What is in a directory; nothing if it is gone since it was seen: a container may run in it."""
    found: dict[str, os.stat_result] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    found[entry.name] = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
    except (FileNotFoundError, NotADirectoryError):
        pass
    return found


def changes_size(mine: Path, changes: list[Change]) -> int:
    """Bytes of the files in `mine` that `changes` names, links counted once and directories not at all."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for change in changes:
        if change.kind == DELETED:
            continue
        try:
            found = os.lstat(f"{mine}{change.path}")
        except FileNotFoundError:
            continue  # gone since
        if stat.S_ISDIR(found.st_mode):
            continue
        if found.st_nlink > 1:
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
        total += found.st_size
    return total


def _compare(mine: str, below: str | None, prefix: str, changes: list[Change], waiting: list[_Pair]) -> None:
    here, there = entries_of(mine), {} if below is None else entries_of(below)
    changes += [Change(f"{prefix}/{name}", DELETED) for name in there.keys() - here.keys()]
    for name, found in here.items():
        inside, old = f"{prefix}/{name}", there.get(name)
        if stat.S_ISDIR(found.st_mode):
            as_old = old is not None and stat.S_ISDIR(old.st_mode)
            waiting.append((f"{mine}/{name}", f"{below}/{name}" if as_old else None, inside))
        if old is None:
            changes.append(Change(inside, ADDED))
        elif _differs(found, old) or (
            stat.S_ISREG(found.st_mode) and _capability(mine, name) != _capability(below, name)
        ):
            changes.append(Change(inside, MODIFIED))


def _differs(new: os.stat_result, old: os.stat_result) -> bool:
    """moby's statDifferent: a directory's size and times say nothing."""
    if (new.st_mode, new.st_uid, new.st_gid, new.st_rdev) != (
        old.st_mode,
        old.st_uid,
        old.st_gid,
        old.st_rdev,
    ):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    return (new.st_size, new.st_mtime_ns) != (old.st_size, old.st_mtime_ns)


def _capability(directory: str | None, name: str) -> bytes | None:
    try:
        return xattr.get(f"{directory}/{name}", "security.capability")
    except FileNotFoundError:
        return None
