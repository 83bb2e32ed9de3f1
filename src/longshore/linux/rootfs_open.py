"""Reading files of a container's root file system, where every link was made by somebody else."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from pathlib import Path

from longshore.linux.openat import openat2

_MOST_LINKS = 255
"""As in Docker, which looks for them as this does; the kernel follows 40."""


def resolve_in_root(root: int, path: str) -> str:
    """`path` without links, as far as it exists: a name to show, and to be resolved anew when used.

    `root` is a descriptor of a directory; a link that leads nowhere is followed as well.
    """
    done, left, links = "/", [part for part in reversed(path.split("/")) if part], 0
    while left:
        part = left.pop()
        if part in (".", ".."):
            done = posixpath.dirname(done) if part == ".." else done
            continue
        here = posixpath.join(done, part)
        target = _link_target(root, here)
        if target is None or links >= _MOST_LINKS:
            done = here
            continue
        links += 1
        done = "/" if target.startswith("/") else done
        left += [part for part in reversed(target.split("/")) if part]
    return done


def _link_target(root: int, path: str) -> str | None:
    try:
        file = openat2(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=file)
    except OSError:
        return None  # No link.
    finally:
        os.close(file)


def read_in_root(root: str | Path, path: str, limit: int = 1 << 24) -> bytes | None:
    """The content of `path` as seen inside `root`; None if there is no such regular file.

    Links are followed within `root` only. A file longer than `limit` bytes raises EFBIG, since whoever
    made the image also chose its size; devices, FIFOs and the like are not read.
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # O_NONBLOCK: opening a FIFO would wait for a writer.
        descriptor = openat2(directory, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return None
        raise
    finally:
        os.close(directory)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return content
