"""What COPY and ADD take: files below a root that somebody else filled, found and known by their content.

Every path is resolved by the kernel with the root as its root, and below that no link is followed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from posixpath import basename
from types import MappingProxyType

from longshore.build.patterns import IgnoreRules, clean, go_match, has_wildcards
from longshore.errors import InvalidParameter, NotFound
from longshore.linux.openat import openat2

_CHUNK = 1 << 20
_DEEPEST = 512
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
CAPABILITY = "security.capability"


@dataclass(frozen=True)
class Source:
    """One thing to copy: `path` below the root `origin`, and a digest of all that matters about it.

    `origin` None is a path of this machine's own, of something that was fetched. `pivot` is how much of
    the path is kept at the destination with --parents.
    """

    origin: Path
    path: str
    hash: str
    is_directory: bool
    pivot: str = ""
    extract: bool = True
    """Whether ADD may unpack it: not what came from elsewhere."""


@dataclass(frozen=True)
class Entry:
    """A file met on a walk: its name relative to where the walk began, and how to reach it."""

    name: str
    parent: int
    base: str
    found: os.stat_result


def find_sources(
    root: Path,
    patterns: list[str],
    exclude: list[str],
    *,
    parents: bool = False,
    ownership: bool = False,
    check: Callable[[], None] = lambda: None,
    known: Mapping[str, bytes] = MappingProxyType({}),
) -> list[Source]:
    """What the patterns of a COPY stand for below `root`, in order.

    `ownership`: owners are copied too, and so matter. `check` is called again and again, and may raise to
    end it. `known`: contents' digests (`content_digest`) by path below `root`, of files that have not changed
    since and have no capabilities. Raises NotFound, worded as Docker words it.
    """
    rules = IgnoreRules(exclude) if exclude else None
    found: list[Source] = []
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    hasher = _Hasher(rules, ownership, check, known, _real_path(directory))
    try:
        for pattern in patterns:
            wanted, pivot = _pivot(pattern) if parents else (pattern, "")
            wanted = _below_root(wanted)
            paths = _glob(directory, wanted) if has_wildcards(wanted) else [wanted]
            for path in paths:
                if rules is not None and has_wildcards(wanted) and rules.excludes(basename(path)):
                    continue
                found.append(_source(root, directory, path, hasher, pivot))
    finally:
        os.close(directory)
    if not found:
        raise NotFound("no source files were specified")
    return found


def content_digest(content: bytes) -> bytes:
    """What a file's content counts as."""
    return hashlib.sha256(content).digest()


def hash_strings(kind: str, hashes: list[str]) -> str:
    """One digest of several."""
    return f"{kind}:{hashlib.sha256(','.join(hashes).encode()).hexdigest()}"


@contextmanager
def opened(source: Source) -> Iterator[int]:
    """A descriptor of the source, links resolved: of a directory to walk, of a file to read."""
    directory = os.open(source.origin, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        file = openat2(directory, source.path or ".", os.O_PATH)
    finally:
        os.close(directory)
    try:
        yield file
    finally:
        os.close(file)


def walk(top: int, rules: IgnoreRules | None = None) -> Iterator[Entry]:
    """Everything below the directory behind `top`, a directory before what it holds, in order of name."""
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
    yield from _walk(root, "", rules, 0)


def _walk(directory: int, prefix: str, rules: IgnoreRules | None, depth: int) -> Iterator[Entry]:
    """Closes `directory`."""
    try:
        if depth > _DEEPEST:
            raise InvalidParameter(f"{prefix}: directories are nested too deep")
        for base in sorted(os.listdir(directory)):
            name = f"{prefix}{base}"
            found = os.stat(base, dir_fd=directory, follow_symlinks=False)
            is_directory = stat.S_ISDIR(found.st_mode)
            excluded = rules is not None and rules.excludes(name)
            if excluded and not (is_directory and rules is not None and rules.takes_back):
                continue
            if not excluded:
                yield Entry(name, directory, base, found)
            if is_directory:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                yield from _walk(os.open(base, flags, dir_fd=directory), f"{name}/", rules, depth + 1)
    finally:
        os.close(directory)


@contextmanager
def reading(parent: int, base: str) -> Iterator[int]:
    """A descriptor of a regular file to read."""
    file = os.open(base, _READ | os.O_NOFOLLOW, dir_fd=parent)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def reopened(file: int) -> Iterator[int]:
    """A descriptor to read a regular file that is held with O_PATH."""
    again = os.open(f"/proc/self/fd/{file}", _READ)
    try:
        yield again
    finally:
        os.close(again)


def chunks_of(file: int) -> Iterator[bytes]:
    """The content of a file."""
    while chunk := os.read(file, _CHUNK):
        yield chunk


def capability(file: int) -> bytes | None:
    """The file capabilities of a file that is open for reading."""
    try:
        return os.getxattr(file, CAPABILITY)
    except OSError:
        return None


def _below_root(pattern: str) -> str:
    """Relative to the root, which `..` does not leave."""
    return clean("/" + pattern.lstrip("/")).lstrip("/")


def _pivot(pattern: str) -> tuple[str, str]:
    """`a/./b` copies `a/b`, and keeps `b`: the pattern, and the part to leave out."""
    before, mark, after = pattern.partition("/./")
    if mark and before:
        return f"{before}/{after}", _below_root(before)
    return pattern, ""


def _source(root: Path, directory: int, path: str, hasher: _Hasher, pivot: str) -> Source:
    try:
        file = openat2(directory, path or ".", os.O_PATH)
    except OSError as exc:
        if isinstance(exc, FileNotFoundError | NotADirectoryError):
            raise NotFound(f"stat {path}: file does not exist") from None
        raise InvalidParameter(f"stat {path}: {(exc.strerror or '').lower()}") from None
    try:
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            return Source(root, path, hasher.of_directory(file), True, pivot)
        return Source(root, path, hasher.of_file(file, basename(path), found), False, pivot)
    finally:
        os.close(file)


class _Hasher:
    """Digests of all that matters about files."""

    def __init__(
        self,
        rules: IgnoreRules | None,
        ownership: bool,
        check: Callable[[], None],
        known: Mapping[str, bytes],
        root: str,
    ) -> None:
        self._rules = rules
        self._ownership = ownership
        self._check = check
        self._known = known
        self._root = root

    def of_file(self, file: int, name: str, found: os.stat_result) -> str:
        digest = hashlib.sha256()
        if stat.S_ISREG(found.st_mode):
            with reopened(file) as readable:
                self._add(digest, name, found, readable)
        else:
            _note(digest, name, found, self._ownership, None)
        return f"file:{digest.hexdigest()}"

    def of_directory(self, top: int) -> str:
        digest = hashlib.sha256()
        # Where it is, links resolved: below that, none is followed.
        prefix = _real_path(top).removeprefix(self._root).strip("/")
        prefix += "/" if prefix else ""
        for entry in walk(top, self._rules):
            self._check()
            mode = entry.found.st_mode
            if stat.S_ISREG(mode) and (known := self._known.get(prefix + entry.name)) is not None:
                _note(digest, entry.name, entry.found, self._ownership, None)
                digest.update(known)
                continue
            if stat.S_ISREG(mode):
                with reading(entry.parent, entry.base) as file:
                    self._add(digest, entry.name, entry.found, file)
                continue
            _note(digest, entry.name, entry.found, self._ownership, None)
            if stat.S_ISLNK(mode):
                # Delimited, as everything here: nobody may write one thing so that it reads as another.
                target = os.readlink(entry.base, dir_fd=entry.parent)
                digest.update(repr(target).encode("utf-8", "surrogateescape") + b"\0")
        return f"dir:{digest.hexdigest()}"

    def _add(self, digest: hashlib._Hash, name: str, found: os.stat_result, file: int) -> None:
        _note(digest, name, found, self._ownership, capability(file))
        content = hashlib.sha256()
        for chunk in chunks_of(file):
            self._check()
            content.update(chunk)
        digest.update(content.digest())


def _real_path(directory: int) -> str:
    return str(Path(f"/proc/self/fd/{directory}").readlink())


def _note(
    digest: hashlib._Hash, name: str, found: os.stat_result, ownership: bool, attribute: bytes | None
) -> None:
    """What is told of a file besides its content: not its times, as in Docker."""
    owner = (found.st_uid, found.st_gid) if ownership else ()
    device = found.st_rdev if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode) else 0
    size = found.st_size if stat.S_ISREG(found.st_mode) else 0
    told = (name, found.st_mode, size, device, owner, attribute)
    digest.update(repr(told).encode("utf-8", "surrogateescape") + b"\0")


def _glob(root: int, pattern: str) -> list[str]:
    """Paths that match, in the order of a walk; `**` stands for any number of directories."""
    found: list[str] = []
    _expand_glob(root, "", pattern.split("/"), found)
    return list(dict.fromkeys(found))


def _expand_glob(root: int, prefix: str, parts: list[str], found: list[str]) -> None:
    if prefix.count("/") > _DEEPEST:
        raise InvalidParameter(f"{prefix}: directories are nested too deep")
    part, rest = parts[0], parts[1:]
    directory = prefix.rstrip("/")
    if part == "**" and rest:
        _expand_glob(root, prefix, rest, found)
        for name, is_directory in _names(root, directory):
            if is_directory:
                _expand_glob(root, f"{prefix}{name}/", parts, found)
        return
    for name, is_directory in _names(root, directory):
        if not go_match(part, name):
            continue
        if not rest:
            found.append(prefix + name)
        elif is_directory:
            _expand_glob(root, f"{prefix}{name}/", rest, found)


def _names(root: int, directory: str) -> list[tuple[str, bool]]:
    """What a directory holds, sorted, and whether each is a directory itself; links are not entered."""
    opened_directory = openat2(root, directory or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(opened_directory) as entries:
            return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    finally:
        os.close(opened_directory)
