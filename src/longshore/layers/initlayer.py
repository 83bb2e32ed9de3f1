"""Docker's init layer: the mount points and files every container finds, between image and own layer.

They are there so that mounting over them never shows up as a change the container made.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from longshore.layers.idmap import IdMap
from longshore.linux.openat import Resolve, openat2

_DIRECTORY, _FILE = "dir", "file"

_ENTRIES = {
    "/dev/pts": _DIRECTORY,
    "/dev/shm": _DIRECTORY,
    "/proc": _DIRECTORY,
    "/sys": _DIRECTORY,
    "/.dockerenv": _FILE,
    "/etc/resolv.conf": _FILE,
    "/etc/hosts": _FILE,
    "/etc/hostname": _FILE,
    "/dev/console": _FILE,
    "/etc/mtab": "/proc/mounts",
}


def setup_init_layer(root: Path, ids: IdMap) -> None:
    """Make the entries below `root`. Links and files of the image in their place are removed."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path, kind in _ENTRIES.items():
            _make(top, path, kind, ids)
    finally:
        os.close(top)


def _make(top: int, path: str, kind: str, ids: IdMap) -> None:
    *parents, name = path.strip("/").split("/")
    directory = os.dup(top)
    try:
        for parent in parents:
            below = _enter(directory, parent, ids)
            os.close(directory)
            directory = below
        _unlink(directory, name)
        if kind == _DIRECTORY:
            os.close(_enter(directory, name, ids))
        elif kind == _FILE:
            with suppress(FileExistsError, IsADirectoryError):
                file = os.open(
                    name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o755, dir_fd=directory
                )
                try:
                    os.fchmod(file, 0o755)
                    os.fchown(file, *ids.root)
                finally:
                    os.close(file)
        else:
            with suppress(FileExistsError):
                os.symlink(kind, name, dir_fd=directory)
                os.chown(name, *ids.root, dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(directory)


def _enter(directory: int, name: str, ids: IdMap) -> int:
    _unlink(directory, name)
    try:
        os.mkdir(name, 0o755, dir_fd=directory)
        os.chown(name, *ids.root, dir_fd=directory, follow_symlinks=False)
        os.chmod(name, 0o755, dir_fd=directory)
    except FileExistsError:
        pass
    return openat2(directory, name, os.O_PATH | os.O_DIRECTORY, resolve=Resolve.NO_SYMLINKS)


def _unlink(directory: int, name: str) -> None:
    # A directory stays: unlink refuses it, and that is all the test there is, as in moby's initlayer.
    with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
        os.unlink(name, dir_fd=directory)
