"""Mounting: mount(2), umount2(2), the file-descriptor based mount calls of Linux 5.2, and mountinfo.

Every failure is an OSError that carries the kernel's errno and the path it is about.
"""

from __future__ import annotations

import ctypes
import enum
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)

# The same numbers on every architecture: calls added since 5.0 share them.
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432

_AT_FDCWD = -100
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_CLONE_FS = 0x200

_FILESYSTEMS = {
    0x61756673: "aufs",
    0x9123683E: "btrfs",
    0xEF53: "extfs",
    0xF2F52010: "f2fs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0x794C7630: "overlayfs",
    0x01021994: "tmpfs",
    0x58465342: "xfs",
    0x2FC12FC1: "zfs",
}


class MountFlags(enum.IntFlag):
    """MS_* of mount(2)."""

    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    SYNCHRONOUS = 0x10
    REMOUNT = 0x20
    MANDLOCK = 0x40
    DIRSYNC = 0x80
    NOATIME = 0x400
    NODIRATIME = 0x800
    BIND = 0x1000
    MOVE = 0x2000
    REC = 0x4000
    UNBINDABLE = 0x20000
    PRIVATE = 0x40000
    SLAVE = 0x80000
    SHARED = 0x100000
    RELATIME = 0x200000
    STRICTATIME = 0x1000000


NO_FLAGS = MountFlags(0)


class UnmountFlags(enum.IntFlag):
    """MNT_* and UMOUNT_* of umount2(2)."""

    FORCE = 0x1
    DETACH = 0x2
    EXPIRE = 0x4
    NOFOLLOW = 0x8


class MountPoint(NamedTuple):
    """A line of /proc/self/mountinfo; see proc(5)."""

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: str
    propagation: str
    """The optional fields, such as `shared:12 master:3`."""
    fstype: str
    source: str
    super_options: str


def mount(
    source: str, target: str | Path, fstype: str = "", flags: MountFlags = NO_FLAGS, data: str = ""
) -> None:
    """mount(2). `data` beyond a page is refused with ENAMETOOLONG: the kernel would cut it silently."""
    encoded = os.fsencode(data)
    if len(encoded) >= os.sysconf("SC_PAGESIZE"):
        raise OSError(36, "mount options longer than a page", os.fspath(target))
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(fstype) or None,
        ctypes.c_ulong(flags),
        encoded or None,
    )
    if result != 0:
        raise _failure(os.fspath(target))


def umount(target: str | Path, flags: UnmountFlags = UnmountFlags.NOFOLLOW) -> None:
    """umount2(2)."""
    if _libc.umount2(os.fsencode(target), ctypes.c_int(flags)) != 0:
        raise _failure(os.fspath(target))


@contextmanager
def mounted(
    source: str, target: str | Path, fstype: str = "", flags: MountFlags = NO_FLAGS, data: str = ""
) -> Iterator[None]:
    """Have something mounted for the length of a block."""
    mount(source, target, fstype, flags, data)
    try:
        yield
    finally:
        umount(target, UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)


@contextmanager
def detached(fstype: str, options: list[tuple[str, str | None]], source: str = "") -> Iterator[int]:
    """A new file system that is mounted nowhere: yields a directory descriptor of its root.

    Options go to fsconfig(2) one by one, a value None being a flag; each value must be shorter than 256
    bytes. Gone when the block ends, or stays where `attach` put it. ENOSYS before Linux 5.2.
    """
    context = _call(_SYS_FSOPEN, os.fsencode(fstype), _FSOPEN_CLOEXEC, subject=fstype)
    try:
        if source:
            _configure(context, "source", source)
        for key, value in options:
            _configure(context, key, value)
        _call(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0, subject=fstype)
        root = _call(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0, subject=fstype)
    finally:
        os.close(context)
    try:
        yield root
    finally:
        os.close(root)


def attach(root: int, target: str | Path) -> None:
    """Put a `detached` file system at `target`: move_mount(2)."""
    where = os.fsencode(target)
    _call(_SYS_MOVE_MOUNT, root, b"", _AT_FDCWD, where, _MOVE_MOUNT_F_EMPTY_PATH, subject=os.fspath(target))


def mountinfo(path: str = "/proc/self/mountinfo") -> list[MountPoint]:
    """All mounts of this mount namespace, in the kernel's order: later ones lie on top."""
    with open(path, "rb") as lines:  # noqa: PTH123 - read as a book is, line by line
        return [_parse(os.fsdecode(line)) for line in lines]


def is_mount_point(target: str | Path) -> bool:
    """Whether something is mounted exactly at `target`, which must be absolute and without links."""
    wanted = os.fspath(target)
    return any(point.target == wanted for point in mountinfo())


def mount_id(path: str | Path) -> int:
    """The kernel's number of the mount that a path lies on: another than its directory's if it is one."""
    file = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{file}").read_text().splitlines()
    finally:
        os.close(file)
    return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def filesystem_name(path: str | Path) -> str:
    """The file system a path lies on, named as Docker names it (`extfs` for ext2 to ext4)."""
    buffer = ctypes.create_string_buffer(512)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        raise _failure(os.fspath(path))
    magic = ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF
    return _FILESYSTEMS.get(magic, "<unknown>")


def unshare_working_directory() -> None:
    """Give the calling thread a working directory, root and umask of its own: unshare(CLONE_FS)."""
    if _libc.unshare(_CLONE_FS) != 0:
        raise _failure("")


def _parse(line: str) -> MountPoint:
    left, _, right = line.rstrip("\n").partition(" - ")
    number, parent, device, root, target, options, *optional = left.split(" ")
    fstype, source, super_options = [*right.split(" ", 2), "", ""][:3]
    return MountPoint(
        int(number),
        int(parent),
        device,
        _unescape(root),
        _unescape(target),
        options,
        " ".join(optional),
        fstype,
        _unescape(source),
        super_options,
    )


def _unescape(text: str) -> str:
    # The kernel writes blank, tab, newline and backslash as \ooo.
    if "\\" not in text:
        return text
    head, *rest = text.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def _configure(context: int, key: str, value: str | None) -> None:
    if value is None:
        _call(_SYS_FSCONFIG, context, _FSCONFIG_SET_FLAG, os.fsencode(key), None, 0, subject=key)
    else:
        name, content = os.fsencode(key), os.fsencode(value)
        _call(_SYS_FSCONFIG, context, _FSCONFIG_SET_STRING, name, content, 0, subject=f"{key}={value}")


def _call(number: int, *arguments: int | bytes | None, subject: str) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise _failure(subject)
    return result


def _failure(subject: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), subject)
