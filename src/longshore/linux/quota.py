"""Project quotas: one limit for everything below a directory, on file systems that count by project.

See quotactl_fd(2), which is since Linux 5.14, quotactl(2) for XFS's commands, ioctl_xfs_fsgetxattr(2) and
xfs_quota(8). Every failure is an OSError; ENOSYS and ESRCH say that nobody counts here.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_QUOTACTL_FD = 443

_PRJQUOTA = 2
_Q_XSETQLIM = 0x5804
_FS_PROJ_QUOTA = 2
_FS_DQ_BSOFT, _FS_DQ_BHARD = 1 << 2, 1 << 3
_BASIC_BLOCK = 512

_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FS_XFLAG_PROJINHERIT = 0x200


class _FsXattr(ctypes.Structure):
    """struct fsxattr of linux/fs.h."""

    _fields_ = (
        ("xflags", ctypes.c_uint32),
        ("extsize", ctypes.c_uint32),
        ("nextents", ctypes.c_uint32),
        ("projid", ctypes.c_uint32),
        ("cowextsize", ctypes.c_uint32),
        ("pad", ctypes.c_uint8 * 8),
    )


class _FsDiskQuota(ctypes.Structure):
    """struct fs_disk_quota of linux/dqblk_xfs.h, as far as limits go; the rest is counts and timers."""

    _fields_ = (
        ("version", ctypes.c_int8),
        ("flags", ctypes.c_int8),
        ("fieldmask", ctypes.c_uint16),
        ("id", ctypes.c_uint32),
        ("blk_hardlimit", ctypes.c_uint64),
        ("blk_softlimit", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 88),
    )


def project_of(directory: Path) -> int:
    """The project that the directory belongs to; 0 for none."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return int(_attributes(descriptor).projid)
    finally:
        os.close(descriptor)


def set_project(directory: Path, project: int) -> None:
    """Let the directory, and whatever is made below it from now on, belong to the project."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        attributes = _attributes(descriptor)
        attributes.projid = project
        attributes.xflags |= _FS_XFLAG_PROJINHERIT
        fcntl.ioctl(descriptor, _FS_IOC_FSSETXATTR, bytes(attributes))
    finally:
        os.close(descriptor)


def limit_project(on: Path, project: int, size: int) -> None:
    """Let the project take at most `size` bytes of the file system that `on` is on; 0 is no limit."""
    blocks = -(-size // _BASIC_BLOCK)
    limits = _FsDiskQuota(
        version=1,
        flags=_FS_PROJ_QUOTA,
        fieldmask=_FS_DQ_BSOFT | _FS_DQ_BHARD,
        id=project,
        blk_hardlimit=blocks,
        blk_softlimit=blocks,
    )
    descriptor = os.open(on, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        command = _Q_XSETQLIM << 8 | _PRJQUOTA
        result = _libc.syscall(
            ctypes.c_long(_SYS_QUOTACTL_FD), descriptor, command, project, ctypes.byref(limits)
        )
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(on))
    finally:
        os.close(descriptor)


def _attributes(descriptor: int) -> _FsXattr:
    buffer = bytearray(ctypes.sizeof(_FsXattr))
    fcntl.ioctl(descriptor, _FS_IOC_FSGETXATTR, buffer)
    return _FsXattr.from_buffer(buffer)
