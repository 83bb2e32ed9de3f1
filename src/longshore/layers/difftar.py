"""Writing a layer's archive from its files."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from longshore.layers.driver import DELETED, Change
from longshore.layers.extract import WHITEOUT
from longshore.layers.idmap import IdMap
from longshore.layers.tarheader import Header
from longshore.layers.tarstream import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR,
    DIRECTORY,
    FIFO,
    LINK,
    REGULAR,
    SYMLINK,
)
from longshore.linux.openat import Resolve, openat2

_CHUNK = 1 << 20
SMALL = 64 * 1024
"""Bytes of a file whose content is at hand as a whole."""

_TYPES = {stat.S_IFREG: REGULAR, stat.S_IFCHR: CHAR, stat.S_IFBLK: BLOCK_DEVICE, stat.S_IFIFO: FIFO}
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_CAPABILITY = "security.capability"
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


class Member(NamedTuple):
    """An entry with its content: all of it, or, of a large file, chunks to be read before the next entry."""

    header: Header
    content: bytes | Iterator[bytes] = b""


def diff_tar(root: Path, changes: list[Change], ids: IdMap) -> Iterator[bytes]:
    """An archive of `changes`; files lie below `root`, in chunks. What is gone, and sockets, are left out."""
    return _archive(diff_members(root, changes, ids))


def diff_members(
    root: Path, changes: list[Change], ids: IdMap, sockets: Callable[[str], None] = lambda path: None
) -> Iterator[Member]:
    """The entries of that archive; `sockets` hears of those that are left out: paths below `root`."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _Tree(top, ids, sockets) as tree:
            for change in changes:
                name = change.path.lstrip("/")
                if change.kind == DELETED:
                    parent, _, base = name.rpartition("/")
                    name = f"{parent}/{WHITEOUT}{base}" if parent else f"{WHITEOUT}{base}"
                    yield Member(Header(name, REGULAR, 0o600, 0, 0, 0, 0))
                elif (member := tree.member(name, name)) is not None:
                    yield member
    finally:
        os.close(top)


def tree_tar(root: int, path: str, ids: IdMap, named: Callable[[str], str]) -> Iterator[bytes]:
    """An archive of `path`, relative to the directory behind `root`, and of all below it.

    `named` gives the name in the archive of each path, which is written as `path` with a slash and the rest
    behind it; what has no name is left out. Only directories that are really there are entered, no links;
    what goes while it is read is left out.
    """
    return _archive(_tree_members(root, path, ids, named))


def padding(size: int) -> bytes:
    """What follows content of `size` bytes, up to the next block."""
    return bytes(-size % BLOCK)


def _archive(members: Iterator[Member]) -> Iterator[bytes]:
    """In chunks of some size: small files are many."""
    pending: list[bytes] = []
    length = 0
    for header, content in members:
        pieces = (content,) if isinstance(content, bytes) else content
        pending.append(header.encode())
        for piece in pieces:
            pending.append(piece)
            length += len(piece)
            if length >= _CHUNK:
                yield b"".join(pending)
                pending.clear()
                length = 0
        pending.append(padding(header.size))
        length += BLOCK
    yield b"".join((*pending, bytes(2 * BLOCK)))


def _tree_members(root: int, path: str, ids: IdMap, named: Callable[[str], str]) -> Iterator[Member]:
    waiting = [path]
    with _Tree(root, ids) as tree:
        while waiting:
            current = waiting.pop()
            if (name := named(current)) and (member := tree.member(current, name)) is not None:
                yield member
            # Sorted, and the last is the next: the order of a walk by depth.
            waiting += [f"{current}/{name}" for name in sorted(_children(root, current), reverse=True)]


def _children(root: int, path: str) -> list[str]:
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY
        directory = openat2(root, path, flags, resolve=Resolve.NO_SYMLINKS | Resolve.BENEATH)
    except OSError as exc:
        if exc.errno in _GONE:
            return []
        raise
    try:
        return [entry.name for entry in os.scandir(directory)]
    finally:
        os.close(directory)


class _Tree:
    """Describes what is below the directory `root`, and knows files with several names again."""

    def __init__(self, root: int, ids: IdMap, sockets: Callable[[str], None] = lambda path: None) -> None:
        self._root = root
        self._ids = ids
        self._sockets = sockets
        self._links: dict[tuple[int, int], str] = {}
        self._where: str | None = None
        self._directory = -1
        """What `_where` is, open; what follows in an archive mostly lies in the same directory."""
        self._file = -1
        """What is being read."""

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_file()
        self._leave()

    def member(self, path: str, name: str) -> Member | None:
        """The entry of `path`, called `name` in the archive; None if there is nothing to describe."""
        self._close_file()
        where, _, base = path.rpartition("/")
        try:
            self._enter(where or ".")
            found = os.stat(base, dir_fd=self._directory, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_size:
                return self._with_content(base, name)
            if stat.S_ISSOCK(found.st_mode):
                self._sockets(path)
                return None
            return self._without_content(base, name, found)
        except OSError as exc:
            if exc.errno in _GONE:
                return None  # since the changes were listed
            raise

    def _enter(self, path: str) -> None:
        if self._where != path:
            self._leave()
            flags = os.O_PATH | os.O_DIRECTORY
            self._directory = openat2(self._root, path, flags, resolve=Resolve.NO_SYMLINKS)
            self._where = path

    def _leave(self) -> None:
        if self._where is not None:
            self._where = None
            os.close(self._directory)

    def _close_file(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)

    def _with_content(self, base: str, name: str) -> Member | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = self._file = os.open(base, flags, dir_fd=self._directory)
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            return None  # Put there since it was looked at; it was no change.
        header = self._header(name, REGULAR, found, _pax(file), size=found.st_size)
        content = _content(file, header.size)
        return Member(header, b"".join(content) if header.size <= SMALL else content)

    def _without_content(self, base: str, name: str, found: os.stat_result) -> Member | None:
        kind = found.st_mode
        if stat.S_ISLNK(kind):
            linkname = os.readlink(base, dir_fd=self._directory)
            return Member(self._header(name, SYMLINK, found, linkname=linkname))
        pax = _pax(f"/proc/self/fd/{self._directory}/{base}")
        if stat.S_ISDIR(kind):
            return Member(self._header(name.rstrip("/") + "/", DIRECTORY, found, pax))
        type = _TYPES.get(stat.S_IFMT(kind))
        return None if type is None else Member(self._header(name, type, found, pax))

    def _header(
        self,
        name: str,
        type: bytes,
        found: os.stat_result,
        pax: dict[str, str] | None = None,
        *,
        size: int = 0,
        linkname: str = "",
    ) -> Header:
        major = minor = 0
        if found.st_nlink > 1 and type != DIRECTORY:
            first = self._links.setdefault((found.st_dev, found.st_ino), name)
            if first != name:
                type, linkname, size = LINK, first, 0
        if type in (CHAR, BLOCK_DEVICE):
            major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        uid, gid = self._ids.to_container(found.st_uid, found.st_gid)
        mode, mtime = stat.S_IMODE(found.st_mode), found.st_mtime_ns // 1_000_000_000
        return Header(name, type, mode, uid, gid, size, mtime, linkname, major, minor, pax)


def _pax(file: int | str) -> dict[str, str] | None:
    """The record of a file's capabilities, the one attribute that archives keep."""
    try:
        value = os.getxattr(file, _CAPABILITY, follow_symlinks=isinstance(file, int))
    except OSError:
        return None
    if value[_VERSION : _VERSION + 1] == b"\3":
        # The capability of a user namespace's root: outside of it he is nobody; as go-archive does.
        value = value[:_VERSION] + b"\2" + value[_VERSION + 1 : _REVISION_2]
    # Records are encoded as UTF-8 with surrogates for odd bytes: any value survives.
    return {f"SCHILY.xattr.{_CAPABILITY}": value.decode("utf-8", "surrogateescape")}


def _content(file: int, size: int) -> Iterator[bytes]:
    left = size
    while left and (chunk := os.read(file, min(_CHUNK, left))):
        left -= len(chunk)
        yield chunk
    # A running container may shorten a file under our hands; the header has promised its length.
    while left:
        yield bytes(min(_CHUNK, left))
        left -= min(_CHUNK, left)
