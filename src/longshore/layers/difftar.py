"""Writing a layer's archive from its files."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from longshore.layers.driver import DELETED, Change
from longshore.layers.extract import WHITEOUT
from longshore.layers.idmap import IdMap
from longshore.linux.openat import Resolve, openat2

_CHUNK = 1 << 20
_KEPT_XATTRS = ("security.capability",)
_VERSION, _REVISION_2 = 3, 20
"""Where struct vfs_cap_data has its revision, and how long its second is."""


class ChunkReader(io.RawIOBase, BinaryIO):
    """An iterator of chunks as a file to read from. Closing it closes the iterator."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None and not self.closed:
            close()
        super().close()


def diff_tar(root: Path, changes: list[Change], ids: IdMap) -> Iterator[bytes]:
    """An archive of `changes`; files lie below `root`, in chunks. Sockets are left out, as in Docker."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        links: dict[tuple[int, int], str] = {}
        for change in changes:
            name = change.path.lstrip("/")
            if change.kind == DELETED:
                parent, _, base = name.rpartition("/")
                info = tarfile.TarInfo(f"{parent}/{WHITEOUT}{base}" if parent else f"{WHITEOUT}{base}")
                info.mode = 0o600
                yield _header(info)
                continue
            yield from _member(top, name, name, links, ids)
        yield bytes(2 * tarfile.BLOCKSIZE)
    finally:
        os.close(top)


def tree_tar(root: int, path: str, ids: IdMap, named: Callable[[str], str]) -> Iterator[bytes]:
    """An archive of `path`, relative to the directory behind `root`, and of all below it.

    `named` gives the name in the archive of each path, which is written as `path` with a slash and the rest
    behind it; what has no name is left out. Only directories that are really there are entered, no links;
    what goes while it is read is left out.
    """
    links: dict[tuple[int, int], str] = {}
    waiting = [path]
    while waiting:
        current = waiting.pop()
        try:
            if name := named(current):
                yield from _member(root, current, name, links, ids)
            # Sorted, and the last is the next: the order of a walk by depth.
            waiting += [f"{current}/{name}" for name in sorted(_children(root, current), reverse=True)]
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
    yield bytes(2 * tarfile.BLOCKSIZE)


def _children(root: int, path: str) -> list[str]:
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY
        directory = openat2(root, path, flags, resolve=Resolve.NO_SYMLINKS | Resolve.BENEATH)
    except (NotADirectoryError, FileNotFoundError):
        return []
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            return []
        raise
    try:
        return [entry.name for entry in os.scandir(directory)]
    finally:
        os.close(directory)


def _member(top: int, path: str, name: str, links: dict[tuple[int, int], str], ids: IdMap) -> Iterator[bytes]:
    """The entry of `path`, called `name` in the archive."""
    parent_name, _, base = path.rpartition("/")
    parent = openat2(top, parent_name or ".", os.O_PATH | os.O_DIRECTORY, resolve=Resolve.NO_SYMLINKS)
    try:
        try:
            found = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return  # gone since the changes were listed
        info = _describe(name, found, parent, base, ids)
        if info is None:
            return
        identity = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            first = links.setdefault(identity, name)
            if first != name:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        yield _header(info)
        if info.type == tarfile.REGTYPE and info.size:
            yield from _content(parent, base, info.size)
    finally:
        os.close(parent)


def _describe(name: str, found: os.stat_result, parent: int, base: str, ids: IdMap) -> tarfile.TarInfo | None:
    info = tarfile.TarInfo(name)
    attributes: dict[str, str] = {}
    kind = found.st_mode
    info.mode = stat.S_IMODE(kind)
    info.uid, info.gid = ids.to_container(found.st_uid, found.st_gid)
    info.mtime = found.st_mtime_ns // 1_000_000_000
    if stat.S_ISDIR(kind):
        info.type = tarfile.DIRTYPE
        info.name = name.rstrip("/") + "/"
    elif stat.S_ISLNK(kind):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(base, dir_fd=parent)
    elif stat.S_ISREG(kind):
        info.size = found.st_size
    elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        info.type = tarfile.CHRTYPE if stat.S_ISCHR(kind) else tarfile.BLKTYPE
        info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    elif stat.S_ISFIFO(kind):
        info.type = tarfile.FIFOTYPE
    else:
        return None
    if not stat.S_ISLNK(kind):
        for attribute in _KEPT_XATTRS:
            try:
                value = os.getxattr(f"/proc/self/fd/{parent}/{base}", attribute, follow_symlinks=False)
            except OSError:
                continue
            if value[_VERSION : _VERSION + 1] == b"\3":
                # The capability of a user namespace's root: outside of it he is nobody; as go-archive does.
                value = value[:_VERSION] + b"\2" + value[_VERSION + 1 : _REVISION_2]
            # tarfile encodes records as UTF-8 with surrogates for odd bytes: any value survives.
            attributes[f"SCHILY.xattr.{attribute}"] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = attributes
    return info


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(parent: int, base: str, size: int) -> Iterator[bytes]:
    file = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    try:
        left = size
        while left and (chunk := os.read(file, min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk
    finally:
        os.close(file)
    # A running container may shorten a file under our hands; the header has promised its length.
    yield bytes(left + -size % tarfile.BLOCKSIZE)
