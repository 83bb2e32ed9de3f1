"""Writing what COPY and ADD take into a root file system, by the classic builder's rules."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import basename, dirname, join
from typing import BinaryIO, cast

from longshore.build.context import watched
from longshore.build.owners import ROOT, Owner
from longshore.build.patterns import IgnoreRules, clean
from longshore.build.sources import (
    CAPABILITY,
    Entry,
    Source,
    capability,
    chunks_of,
    opened,
    reading,
    reopened,
    walk,
)
from longshore.errors import InvalidParameter
from longshore.layers.compression import decompressed
from longshore.layers.copying import CopyExtractor
from longshore.layers.extract import Extractor
from longshore.layers.idmap import IdMap
from longshore.layers.tarstream import (
    BLOCK_DEVICE,
    CHAR,
    DIRECTORY,
    FIFO,
    LINK,
    REGULAR,
    SYMLINK,
    TarEntry,
    TarStream,
    refusing_damage,
)
from longshore.linux.openat import openat2
from longshore.linux.rootfs_open import resolve_in_root

_SYMBOLIC = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugorwxXst]*)")


@dataclass(frozen=True)
class CopyJob:
    """What goes where. `owner` None keeps each file's own; `chmod` "" keeps its mode."""

    sources: list[Source]
    destination: str
    files: list[tuple[str, bytes]] = field(default_factory=list)
    """Names and contents of here-documents."""
    owner: Owner | None = ROOT
    chmod: str = ""
    unpack: bool = False
    parents: bool = False
    exclude: list[str] = field(default_factory=list)
    check: Callable[[], None] = lambda: None
    """Called again and again; it may raise to end the work."""


def perform_copy(root: Path, ids: IdMap, job: CopyJob) -> None:
    """Copy into the file system at `root`. Blocks. Raises InvalidParameter, OSError."""
    writer = _Writer(root, ids, job)
    for source in job.sources:
        writer.copy(source)
    for name, content in job.files:
        writer.write(name, content)


class _Writer:
    def __init__(self, root: Path, ids: IdMap, job: CopyJob) -> None:
        self._root, self._ids, self._job = root, ids, job
        self._rules = IgnoreRules(job.exclude) if job.exclude else None
        self._is_directory = job.destination.endswith("/") or job.parents

    def copy(self, source: Source) -> None:
        destination = self._resolved(self._job.destination)
        if self._job.parents:
            kept = dirname(source.path) if not source.is_directory else source.path
            kept = kept.removeprefix(source.pivot).strip("/") if source.pivot else kept
            destination = self._resolved(join(destination, kept))
        with opened(source) as file:
            if source.is_directory:
                self._copy_directory(file, destination)
                return
            found = os.fstat(file)
            if (
                self._job.unpack
                and source.extract
                and stat.S_ISREG(found.st_mode)
                and self._unpacked(file, destination)
            ):
                return
            if self._is_directory or self._is_existing_directory(destination):
                destination = self._resolved(join(destination, basename(source.path)))
            self._copy_file(file, found, destination)

    def write(self, name: str, content: bytes) -> None:
        destination = self._resolved(self._job.destination)
        if self._is_directory or self._is_existing_directory(destination):
            destination = self._resolved(join(destination, name))
        with self._into(dirname(destination)) as extractor:
            entry = TarEntry(basename(destination), REGULAR, 0o644, 0, 0, len(content), time.time_ns())
            entry.real_size = len(content)
            self._dress(entry)
            extractor.add(entry, content)

    def _copy_directory(self, top: int, destination: str) -> None:
        self._make_directories(destination)
        links: dict[tuple[int, int], str] = {}
        with self._into(destination) as extractor:
            for each in walk(top, self._rules):
                self._job.check()
                entry = _described(each)
                if entry is None:
                    continue
                identity = (each.found.st_dev, each.found.st_ino)
                if each.found.st_nlink > 1 and entry.type != DIRECTORY:
                    first = links.setdefault(identity, each.name)
                    if first != each.name:
                        entry.type, entry.linkname, entry.size = LINK, first, 0
                self._dress(entry)
                if entry.type == REGULAR:
                    with reading(each.parent, each.base) as file:
                        self._add(extractor, entry, file)
                else:
                    extractor.add(entry, b"")

    def _copy_file(self, file: int, found: os.stat_result, destination: str) -> None:
        base = basename(destination)
        if not base:
            raise InvalidParameter("cannot copy a file to the root directory itself")
        entry = _described(Entry(base, -1, "", found))
        if entry is None:
            raise InvalidParameter(f"{base}: sockets can not be copied")
        self._dress(entry)
        with self._into(dirname(destination)) as extractor:
            if entry.type == REGULAR:
                with reopened(file) as readable:
                    self._add(extractor, entry, readable)
            else:
                extractor.add(entry, b"")

    def _add(self, extractor: Extractor, entry: TarEntry, file: int) -> None:
        if (attribute := capability(file)) is not None:
            entry.xattrs[CAPABILITY] = attribute
        extractor.add(entry, self._watched(file))

    def _watched(self, file: int) -> Iterator[bytes]:
        for chunk in chunks_of(file):
            self._job.check()
            yield chunk

    def _unpacked(self, file: int, destination: str) -> bool:
        """Whether the file turned out to be an archive, and was unpacked."""
        with open(f"/proc/self/fd/{file}", "rb") as archive:  # noqa: PTH123
            try:
                if TarStream(decompressed(cast(BinaryIO, archive))).next() is None:
                    return False
            except InvalidParameter:
                return False
            archive.seek(0)
            stream = TarStream(watched(decompressed(cast(BinaryIO, archive)), self._job.check))
            with self._into(destination) as extractor:
                for entry in stream:
                    if self._rules is not None and self._rules.excludes(clean(entry.name)):
                        continue
                    with refusing_damage(entry):
                        extractor.add(entry, stream.content())
        return True

    def _into(self, destination: str) -> CopyExtractor:
        self._make_directories(destination)
        return CopyExtractor(self._root, self._ids, destination)

    def _make_directories(self, path: str) -> None:
        """Make what is missing of the path, mode 0755, belonging to whom the files will belong."""
        owner = self._job.owner or ROOT
        parts = [part for part in path.split("/") if part]
        missing = []
        root = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        with ExitStack() as held:
            held.callback(os.close, root)
            for depth in range(len(parts), 0, -1):
                try:
                    os.close(openat2(root, "/".join(parts[:depth]), os.O_PATH | os.O_DIRECTORY))
                    break
                except FileNotFoundError:
                    missing.append("/".join(parts[:depth]))
                except NotADirectoryError:
                    where = "/" + "/".join(parts[:depth])
                    raise InvalidParameter(f"mkdir {where}: not a directory") from None
        if not missing:
            return
        with CopyExtractor(self._root, self._ids, "/") as extractor:
            for name in reversed(missing):
                entry = TarEntry(name, DIRECTORY, 0o755, owner.uid, owner.gid, 0, time.time_ns())
                extractor.add(entry, b"")

    def _resolved(self, path: str) -> str:
        root = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return resolve_in_root(root, clean("/" + path.lstrip("/")))
        finally:
            os.close(root)

    def _is_existing_directory(self, path: str) -> bool:
        root = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(openat2(root, path, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        finally:
            os.close(root)
        return True

    def _dress(self, entry: TarEntry) -> None:
        owner = self._job.owner
        if owner is not None:
            entry.uid, entry.gid = owner.uid, owner.gid
        else:
            # As seen by the container, which is how an archive has it.
            entry.uid, entry.gid = self._ids.to_container(entry.uid, entry.gid)
        if self._job.chmod and entry.type not in (SYMLINK, LINK):
            entry.mode = apply_mode(self._job.chmod, entry.mode, is_directory=entry.type == DIRECTORY)


def apply_mode(chmod: str, mode: int, *, is_directory: bool) -> int:
    """A mode as --chmod gives it: octal, or changes such as `u=rwX,go=rX`."""
    return mode_change(chmod)(mode, is_directory)


def mode_change(chmod: str) -> Callable[[int, bool], int]:
    """Raises InvalidParameter for what is neither."""
    if re.fullmatch(r"[0-7]{1,5}", chmod) and int(chmod, 8) <= 0o7777:
        fixed = int(chmod, 8)
        return lambda mode, is_directory: fixed
    clauses = [_SYMBOLIC.fullmatch(clause) for clause in chmod.split(",")]
    if not all(clauses):
        raise InvalidParameter(
            f"invalid chmod parameter: '{chmod}'. it should be octal string and between 0 and 07777"
        )

    def change(mode: int, is_directory: bool) -> int:
        for clause in filter(None, clauses):
            for operator, permissions in _ACTION.findall(clause[2]):
                mode = _clause(mode, clause[1], operator, permissions, is_directory)
        return mode

    return change


def _clause(mode: int, who: str, operator: str, permissions: str, is_directory: bool) -> int:
    shifts = {"u": 6, "g": 3, "o": 0}
    if permissions and permissions in shifts:  # as they are for somebody else
        copied = mode >> shifts[permissions] & 0o7
        permissions = "".join(letter for letter, bit in zip("rwx", (4, 2, 1), strict=True) if copied & bit)
    chosen = "ugo" if not who or "a" in who else who
    bits = mask = 0
    for each in chosen:
        shift = shifts[each]
        mask |= 0o7 << shift
        for permission in permissions:
            if permission in "rwx":
                bits |= {"r": 4, "w": 2, "x": 1}[permission] << shift
            elif permission == "X" and (is_directory or mode & 0o111):
                bits |= 1 << shift
            elif permission == "s" and each in "ug":
                bits |= 0o4000 if each == "u" else 0o2000
            elif permission == "t":
                bits |= 0o1000
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    return mode & ~mask | bits


def _described(each: Entry) -> TarEntry | None:
    """The file as an archive would have it; None for sockets, which no archive has."""
    found = each.found
    mode = found.st_mode
    entry = TarEntry(each.name, REGULAR, stat.S_IMODE(mode), found.st_uid, found.st_gid, 0, found.st_mtime_ns)
    if stat.S_ISREG(mode):
        entry.size = entry.real_size = found.st_size
    elif stat.S_ISDIR(mode):
        entry.type = DIRECTORY
    elif stat.S_ISLNK(mode):
        entry.type, entry.linkname = SYMLINK, os.readlink(each.base, dir_fd=each.parent)
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        entry.type = CHAR if stat.S_ISCHR(mode) else BLOCK_DEVICE
        entry.major, entry.minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    elif stat.S_ISFIFO(mode):
        entry.type = FIFO
    else:
        return None
    return entry
