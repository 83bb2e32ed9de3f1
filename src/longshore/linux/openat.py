"""openat2(2): opening paths that other people wrote, without leaving a directory."""

from __future__ import annotations

import ctypes
import enum
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_OPENAT2 = 437


class Resolve(enum.IntFlag):
    """RESOLVE_* of openat2(2)."""

    NO_XDEV = 0x01
    NO_MAGICLINKS = 0x02
    NO_SYMLINKS = 0x04
    BENEATH = 0x08
    IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(
    directory: int,
    path: str | bytes,
    flags: int,
    mode: int = 0,
    resolve: Resolve = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS,
) -> int:
    """Open `path` as seen from `directory`; by default as if `directory` were the root of the file system.

    Absolute paths, `..` and symbolic links then all end inside it. Returns a descriptor that is closed on
    exec. EAGAIN, which the kernel answers when a rename raced with `..`, is tried again here.
    """
    name = os.fsencode(path)
    if b"\0" in name:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fsdecode(path))
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(128):
        result: int = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            directory,
            name,
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if result >= 0:
            return result
        number = ctypes.get_errno()
        if number != 11:
            break
    raise OSError(number, os.strerror(number), os.fsdecode(path))
