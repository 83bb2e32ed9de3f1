"""Reading files of a container's root file system, where every link was made by somebody else."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from longshore.linux.openat import openat2


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
