"""How much a volume holds."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from longshore.linux.openat import openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def directory_size(path: Path) -> int:
    """Bytes of the files below `path`, hard links counted once.

    Whoever writes there meanwhile can lead us astray, but not outside. What no path can name is not counted.
    """
    seen: set[tuple[int, int]] = set()
    total = 0
    root = os.open(path, _DIRECTORY)
    pending = ["."]
    try:
        while pending:
            where = pending.pop()
            with suppress(OSError):
                directory = openat2(root, where, _DIRECTORY)
                try:
                    with os.scandir(directory) as entries:
                        for entry in entries:
                            if entry.is_dir(follow_symlinks=False):
                                pending.append(f"{where}/{entry.name}")
                            else:
                                total += _own_size(entry, seen)
                finally:
                    os.close(directory)
    finally:
        os.close(root)
    return total


def _own_size(entry: os.DirEntry[str], seen: set[tuple[int, int]]) -> int:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:  # gone meanwhile
        return 0
    if status.st_nlink > 1:
        if (status.st_dev, status.st_ino) in seen:
            return 0
        seen.add((status.st_dev, status.st_ino))
    return status.st_size
