"""What a build keeps on disk while it goes on, and what a daemon that died has left of one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import logging
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from longshore.engine.engine import Engine
from longshore.engine.remove import container_remove
from longshore.errors import Conflict, EngineError, NotFound
from longshore.layers.difftar import ChunkReader
from longshore.layers.remove import remove_tree
from longshore.linux.mount import UnmountFlags, mount, umount

if TYPE_CHECKING:
    from longshore.engine.builder.options import BuildOptions

_SMALL = 8 << 20
"""Bytes of an archive that may be unpacked in memory."""
_FEW = 10_000
"""Files that may be kept there."""
_MEMORY = "size=64m,nr_inodes=20000,mode=0755"
_CHUNK = 1 << 18

log = logging.getLogger(__name__)


def builds_root(engine: Engine) -> Path:
    """The directory with one directory for each build that goes on."""
    return engine.data_root / "builder" / "builds"


class Workspace:
    """A build's own directory. `context` is what COPY and ADD take from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.context = root / "context"
        self._digests: dict[str, bytes] = {}
        self._containers = root / "containers"
        root.mkdir(mode=0o700, parents=True)
        self._containers.mkdir()
        # Steps may see it, whoever they run as; from outside the way leads through `root`.
        _make_readable(self.context)

    def fill(self, stream: BinaryIO, unpack: Callable[[BinaryIO], dict[str, bytes]]) -> None:
        """Let `unpack` fill the context from `stream`, and tell its digests. Blocks.

        A small context is kept in memory, which spares the disk hundreds of files that most builds only
        look at. Should it turn out to be large once unpacked, it is unpacked again, on the disk.
        """
        start = stream.read(_SMALL + 1)
        if len(start) <= _SMALL:
            try:
                mount("tmpfs", self.context, "tmpfs", data=_MEMORY)
                self._digests = unpack(io.BytesIO(start))
                return
            except OSError as exc:
                self._release_memory()
                if exc.errno not in (errno.ENOSPC, errno.EPERM):
                    raise
        chunks = chain((start,), iter(lambda: stream.read(_CHUNK), b""))
        self._digests = unpack(ChunkReader(chunks))

    def hold(self, files: int, size: int) -> Path:
        """The context, which so many files and bytes are about to fill; in memory if they are few. Blocks."""
        if size <= _SMALL and files <= _FEW:
            with contextlib.suppress(OSError):
                mount("tmpfs", self.context, "tmpfs", data=_MEMORY)
        return self.context

    def dockerfile(self, options: BuildOptions) -> bytes:
        """The Dockerfile in the context; b"" if it comes from elsewhere. Blocks. Raises InvalidParameter."""
        from longshore.build.context import find_dockerfile

        return b"" if options.local_dockerfile else find_dockerfile(self.context, options.dockerfile)

    def digests_of(self, root: Path) -> dict[str, bytes]:
        """Of files below `root`, by path, as they were sent: none unless it is the context."""
        return self._digests if root == self.root / "context" else {}

    def close(self) -> None:
        """Remove all of it."""
        self._release_memory()
        remove_tree(self.root)

    def _release_memory(self) -> None:
        with contextlib.suppress(OSError):
            umount(self.root / "context", UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)

    def fresh(self, kind: str) -> Path:
        """A new directory in it."""
        path = self.root / f"{kind}-{secrets.token_hex(6)}"
        _make_readable(path)
        return path

    def note_container(self, id: str) -> None:
        """A container of the build exists; should the daemon die, it is of no use to anybody."""
        (self._containers / id).touch()

    def forget_container(self, id: str) -> None:
        """The container is gone, or the user's."""
        (self._containers / id).unlink(missing_ok=True)

    def containers(self) -> list[str]:
        """Ids of the containers that were noted."""
        return [entry.name for entry in self._containers.iterdir()]


@contextmanager
def workspace(engine: Engine) -> Iterator[Workspace]:
    """A directory for one build, gone at its end."""
    space = Workspace(builds_root(engine) / secrets.token_hex(12))
    try:
        yield space
    finally:
        space.close()


async def remove_interrupted_builds(engine: Engine) -> None:
    """Remove what a daemon that died has left of its builds: their containers, directories and programs."""
    builds = list(builds_root(engine).iterdir())
    if builds:
        await asyncio.to_thread(_end_programs, [build.resolve() for build in builds])
    for build in builds:
        for entry in (build / "containers").glob("*"):
            with contextlib.suppress(NotFound, Conflict):
                try:
                    await container_remove(engine, entry.name, force=True, volumes=True)
                except EngineError as exc:
                    if isinstance(exc, NotFound | Conflict):
                        raise
                    log.error("container %s of a build that was cut off stays: %s", entry.name[:12], exc)
        await asyncio.to_thread(_discard, build)


def _make_readable(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)


def _end_programs(builds: list[Path]) -> None:
    """End those at work in these directories: git may wait for its server for ever."""
    ours = Path("/proc/self/ns/mnt").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # Other mount namespaces are containers', where the same path is something else.
            if (process / "ns/mnt").readlink() != ours:
                continue
            place = (process / "cwd").readlink()
            if any(place.is_relative_to(build) for build in builds):
                os.kill(int(process.name), signal.SIGKILL)


def _discard(build: Path) -> None:
    for place in (*build.glob("overlay-*/merged"), *build.glob("secret-*"), build / "context"):
        with contextlib.suppress(OSError):
            umount(place, UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)
    shutil.rmtree(build, ignore_errors=True)
