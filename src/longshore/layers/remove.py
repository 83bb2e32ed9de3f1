"""Removing trees: by descriptors, so that no link swapped in meanwhile leads elsewhere."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from itertools import count
from pathlib import Path

_DEEPEST = 64
"""Directories nested deeper are moved up first: a hostile layer can nest without end, descriptors end."""

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str | Path, *, dir_fd: int | None = None) -> None:
    """Remove a file, link or directory with all it holds.

    What does not exist, or goes while we look because somebody else removes it too, is no error.
    """
    try:
        os.unlink(path, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except OSError as exc:
        if exc.errno not in (errno.EISDIR, errno.EPERM):
            raise
    try:
        top = os.open(path, _OPEN_DIRECTORY, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    try:
        names = count()
        while _empty(top, top, 0, names):
            pass
    finally:
        os.close(top)
    with suppress(FileNotFoundError):
        os.rmdir(path, dir_fd=dir_fd)


def _empty(directory: int, top: int, depth: int, names: count[int]) -> bool:
    """Empty a directory. True if something was too deep and was moved into `top` instead."""
    moved = False
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        with suppress(FileNotFoundError):
            if not is_directory:
                os.unlink(name, dir_fd=directory)
                continue
            if depth >= _DEEPEST:
                aside = f".removed-{os.getpid()}-{next(names)}"
                os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=top)
                moved = True
                continue
            below = os.open(name, _OPEN_DIRECTORY, dir_fd=directory)
            try:
                moved |= _empty(below, top, depth + 1, names)
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=directory)
    return moved
