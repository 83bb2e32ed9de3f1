"""Go's os.FileMode, which is what file descriptions carry, and the kernel's st_mode."""

from __future__ import annotations

import stat

DIRECTORY = 1 << 31
SYMLINK = 1 << 27
DEVICE = 1 << 26
NAMED_PIPE = 1 << 25
SOCKET = 1 << 24
SETUID = 1 << 23
SETGID = 1 << 22
CHAR_DEVICE = 1 << 21
STICKY = 1 << 20
TYPE = DIRECTORY | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHAR_DEVICE | 1 << 19

_BITS = ((SETUID, stat.S_ISUID), (SETGID, stat.S_ISGID), (STICKY, stat.S_ISVTX))


def permissions(mode: int) -> int:
    """The twelve bits of st_mode that are no type."""
    return mode & 0o777 | sum(theirs for go, theirs in _BITS if mode & go)


def from_stat(st_mode: int) -> int:
    """What Go makes of an st_mode."""
    mode = st_mode & 0o777 | sum(go for go, theirs in _BITS if st_mode & theirs)
    kinds = {
        stat.S_IFDIR: DIRECTORY,
        stat.S_IFLNK: SYMLINK,
        stat.S_IFCHR: DEVICE | CHAR_DEVICE,
        stat.S_IFBLK: DEVICE,
        stat.S_IFIFO: NAMED_PIPE,
        stat.S_IFSOCK: SOCKET,
    }
    return mode | kinds.get(stat.S_IFMT(st_mode), 0)
