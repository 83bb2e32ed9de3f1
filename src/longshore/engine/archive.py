"""Copy files into and out of a container: `docker cp`.

Every path is resolved by the kernel with the container's root as its root, so that no link, and no race
with the container's own processes, leads out of it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from longshore.containers.container import Container
from longshore.engine.archive_view import container_root
from longshore.engine.bridges import BodyReader, chunks_of
from longshore.engine.engine import Engine
from longshore.errors import Forbidden, InvalidParameter, NotFound, System
from longshore.layers.compression import decompressed
from longshore.layers.copying import CopyExtractor
from longshore.layers.difftar import tree_tar
from longshore.layers.tarstream import TarStream, refusing_damage
from longshore.linux.openat import openat2
from longshore.linux.rootfs_open import resolve_in_root
from longshore.oci.users import resolve_user
from longshore.threads import in_own_thread
from longshore.types.codec import ApiStruct
from longshore.types.timestamp import rfc3339_nano

T = TypeVar("T")

_MODES = (
    (stat.S_ISDIR, 1 << 31),
    (stat.S_ISLNK, 1 << 27),
    (stat.S_ISBLK, 1 << 26),
    (stat.S_ISCHR, 1 << 26 | 1 << 21),
    (stat.S_ISFIFO, 1 << 25),
    (stat.S_ISSOCK, 1 << 24),
)
"""Kinds of file as Go's os.FileMode has them."""


class ContainerPathStat(ApiStruct):
    """The header X-Docker-Container-Path-Stat. `mode` is Go's os.FileMode."""

    name: str
    size: int
    mode: int
    mtime: str
    linkTarget: str = ""


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """How PUT /containers/{id}/archive treats what is there, and whom the files are to belong to."""

    no_overwrite_dir_non_dir: bool = False
    copy_uid_gid: bool = False


async def container_stat_path(engine: Engine, name: str, path: str) -> ContainerPathStat:
    """HEAD /containers/{id}/archive. Raises NotFound, System."""
    container = engine.containers.get(name)

    def work() -> ContainerPathStat:
        with container_root(engine, container) as root:
            return stat_path(root, absolute(path))

    return await asyncio.to_thread(_Told(name, path).call, work)


async def container_archive_path(
    engine: Engine, name: str, path: str
) -> tuple[ContainerPathStat, AsyncIterator[bytes]]:
    """GET /containers/{id}/archive: what `path` is, and an archive of it. Raises NotFound, System."""
    container = engine.containers.get(name)
    wanted = absolute(path)
    described = await container_stat_path(engine, name, path)

    def work(write: Callable[[bytes], None]) -> None:
        with container_root(engine, container) as root:
            for chunk in _archive(engine, root, wanted, described):
                write(chunk)

    engine.log_container_event(container, "archive-path")
    return described, chunks_of(lambda write: _Told(name, path).call(lambda: work(write)))


async def container_extract_to_dir(
    engine: Engine, name: str, path: str, options: ExtractOptions, body: AsyncIterator[bytes]
) -> None:
    """PUT /containers/{id}/archive: unpack `body`, compressed or not, in the directory `path`.

    Raises NotFound, InvalidParameter if `path` is no directory, Forbidden if it cannot be written, System.
    """
    container = engine.containers.get(name)
    reader = BodyReader(body)

    def work() -> None:
        with container_root(engine, container) as root:
            _extract(engine, container, root, absolute(path), options, cast(BinaryIO, reader))

    try:
        await in_own_thread(lambda: _Told(name, path).call(work))
    finally:
        reader.cancel()
    engine.log_container_event(container, "extract-to-dir")


def absolute(path: str) -> str:
    """Clean and absolute, with the trailing slash or `/.` that asks for what a link leads to."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if clean != "/":
        clean += "/." if path.endswith("/.") else "/" if path.endswith("/") else ""
    return clean


def stat_path(root: int, path: str) -> ContainerPathStat:
    """What is at `path`; of a link, also where it leads. Raises OSError."""
    follow = 0 if path.endswith(("/", "/.")) else os.O_NOFOLLOW
    file = openat2(root, path, os.O_PATH | follow)
    try:
        found = os.fstat(file)
    finally:
        os.close(file)
    target = resolve_in_root(root, path) if stat.S_ISLNK(found.st_mode) else ""
    return ContainerPathStat(
        base_name(path), found.st_size, go_mode(found.st_mode), rfc3339_nano(found.st_mtime_ns), target
    )


def base_name(path: str) -> str:
    """As Go's filepath.Base: of `/etc/` it is `etc`, of `/etc/.` it is `.`."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def go_mode(mode: int) -> int:
    """A mode of stat(2) as Go's os.FileMode."""
    kind = next((bits for is_kind, bits in _MODES if is_kind(mode)), 0)
    for bit, go_bit in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        kind |= go_bit if mode & bit else 0
    return kind | mode & 0o777


def _archive(engine: Engine, root: int, path: str, described: ContainerPathStat) -> Iterator[bytes]:
    """A directory's entries go by its own name; anything else is one entry, a link itself included."""
    is_directory = bool(described.mode & 1 << 31)
    where = path if is_directory else posixpath.dirname(path)
    top = openat2(root, where, os.O_PATH | os.O_DIRECTORY)
    relative = "." if is_directory else f"./{base_name(path)}"
    prefix = "" if described.name == "/" else described.name

    def named(inside: str) -> str:
        name = prefix + inside[1:] if is_directory else prefix
        return name or "/"

    try:
        yield from tree_tar(top, relative, engine.layers.ids, named)
    finally:
        os.close(top)


def _extract(
    engine: Engine, container: Container, root: int, path: str, options: ExtractOptions, body: BinaryIO
) -> None:
    directory = openat2(root, path, os.O_PATH)
    try:
        if not stat.S_ISDIR(os.fstat(directory).st_mode):
            raise InvalidParameter("extraction point is not a directory")
        if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
            raise Forbidden("container rootfs is marked read-only")
    finally:
        os.close(directory)
    target = resolve_in_root(root, path)
    if not _in_writable_mount(container, target) and container.host_config.ReadonlyRootfs:
        raise Forbidden("container rootfs is marked read-only")
    owner = None
    if options.copy_uid_gid and container.config.User:
        user = resolve_user(_magic(root), container.config.User, [])
        owner = user["uid"], user["gid"]
    stream = TarStream(decompressed(body))
    with CopyExtractor(
        _magic(root), engine.layers.ids, target, owner=owner, no_overwrite=options.no_overwrite_dir_non_dir
    ) as extractor:
        for entry in stream:
            with refusing_damage(entry):
                extractor.add(entry, stream.content())


def _in_writable_mount(container: Container, path: str) -> bool:
    points = [
        point
        for point in container.mount_points.values()
        if path == point.Destination or path.startswith(point.Destination.rstrip("/") + "/")
    ]
    nearest = max(points, key=lambda point: len(point.Destination), default=None)
    if nearest is not None and not nearest.RW:
        raise Forbidden("mounted volume is marked read-only")
    return nearest is not None


def _magic(root: int) -> Path:
    return Path(f"/proc/self/fd/{root}")


class _Told:
    """Runs work on a container's files and puts its failures in Docker's words."""

    def __init__(self, name: str, path: str) -> None:
        self._name, self._path = name, path

    def call(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except FileNotFoundError as exc:
            raise NotFound(f"Could not find the file {self._path} in container {self._name}") from exc
        except OSError as exc:
            if exc.errno == errno.EROFS:
                raise Forbidden("container rootfs is marked read-only") from exc
            kind = InvalidParameter if "\0" in self._path else System
            raise kind(f"lstat {self._path}: {(exc.strerror or str(exc)).lower()}") from exc
