"""Files that are never seen half written, modes of files that others may swap, and holes in files."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from pathlib import Path

_libc = ctypes.CDLL(None)
_PUNCH_HOLE, _KEEP_SIZE = 2, 1
_D_TYPE, _DT_UNKNOWN = 18, 0
"""Where struct dirent of 64-bit Linux has it: behind d_ino, d_off and d_reclen."""

TEMPORARY = ".tmp-"
"""What the name of a file begins with that is being written. After a crash they are nobody's."""


def write_atomically(path: Path, content: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replace `path`, so that after a crash there is the old content or the new, never a part.

    `durable` content outlives a power cut; without, a crash of this process only. Raises OSError.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        file = os.open(temporary, flags, mode)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(file, left) :]
            if durable:
                os.fdatasync(file)
        finally:
            os.close(file)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def chmod_nofollow(name: str, mode: int, directory: int) -> None:
    """Set the mode of `name` in an open directory, never of what a symbolic link in its place leads to.

    chmod(2) follows links, and a process that can write to the directory may have put one there. Raises
    OSError, ELOOP for a link.
    """
    file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_ISLNK(os.fstat(file).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        Path(f"/proc/self/fd/{file}").chmod(mode)
    finally:
        os.close(file)


def sync_directory(path: Path) -> None:
    """Make the names in a directory outlive a power cut: fsync(2). Raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_temporaries(directory: Path) -> None:
    """Remove what a crash left half written in `directory`. Raises OSError."""
    for leftover in directory.glob(f"{TEMPORARY}*"):
        leftover.unlink(missing_ok=True)


def punch_hole(file: int, offset: int, length: int) -> None:
    """Give the blocks of a part of a file back: fallocate(2). File systems that cannot keep them."""
    place = (ctypes.c_long(offset), ctypes.c_long(length))
    _libc.fallocate(ctypes.c_int(file), ctypes.c_int(_PUNCH_HOLE | _KEEP_SIZE), *place)


def supports_d_type(directory: Path) -> bool:
    """Whether listing a directory, which must not be empty, tells kinds: d_type of readdir(3)."""
    _libc.opendir.restype = _libc.readdir.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(_libc.opendir(os.fsencode(directory)))
    if not stream:
        return False
    try:
        while entry := _libc.readdir(stream):
            if ctypes.c_uint8.from_address(entry + _D_TYPE).value == _DT_UNKNOWN:
                return False
        return True
    finally:
        _libc.closedir(stream)
