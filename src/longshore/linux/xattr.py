"""Extended attributes of descriptors and of paths, never through a symbolic link.

Descriptors opened with O_PATH take no xattr calls; /proc/self/fd leads around that.
"""

from __future__ import annotations

import errno
import os

Target = int | str | os.PathLike[str]


def get(target: Target, name: str) -> bytes | None:
    """The attribute's value; None if it is not set or the file system has none."""
    try:
        if isinstance(target, int):
            return os.getxattr(target, name)
        return os.getxattr(target, name, follow_symlinks=False)
    except OSError as exc:
        if exc.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise


def set_(target: Target, name: str, value: bytes) -> None:
    """Set the attribute, whether it exists or not."""
    if isinstance(target, int):
        os.setxattr(target, name, value)
    else:
        os.setxattr(target, name, value, follow_symlinks=False)


def list_(target: Target) -> list[str]:
    """The names of all attributes; none where the file system has none."""
    try:
        if isinstance(target, int):
            return os.listxattr(target)
        return os.listxattr(target, follow_symlinks=False)
    except OSError as exc:
        if exc.errno == errno.ENOTSUP:
            return []
        raise


def remove(target: Target, name: str) -> None:
    """Remove the attribute; it is no error if it is not set."""
    try:
        if isinstance(target, int):
            os.removexattr(target, name)
        else:
            os.removexattr(target, name, follow_symlinks=False)
    except OSError as exc:
        if exc.errno != errno.ENODATA:
            raise


def path_of(descriptor: int) -> str:
    """A path that leads to the descriptor's file, for calls that refuse O_PATH descriptors."""
    return f"/proc/self/fd/{descriptor}"
