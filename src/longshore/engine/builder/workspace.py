"""What a build keeps on disk while it goes on, and what a daemon that died has left of one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longshore.engine.engine import Engine
from longshore.engine.remove import container_remove
from longshore.errors import Conflict, EngineError, NotFound
from longshore.layers.remove import remove_tree
from longshore.linux.mount import UnmountFlags, umount

log = logging.getLogger(__name__)


def builds_root(engine: Engine) -> Path:
    """The directory with one directory for each build that goes on."""
    return engine.data_root / "builder" / "builds"


class Workspace:
    """A build's own directory. `context` is what COPY and ADD take from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.context = root / "context"
        self._containers = root / "containers"
        root.mkdir(mode=0o700, parents=True)
        self._containers.mkdir()
        # Steps may see it, whoever they run as; from outside the way leads through `root`.
        _make_readable(self.context)

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
    root = builds_root(engine) / secrets.token_hex(12)
    try:
        yield Workspace(root)
    finally:
        remove_tree(root)


async def remove_interrupted_builds(engine: Engine) -> None:
    """Remove what a daemon that died has left of its builds: their containers, their directories."""
    for build in list(builds_root(engine).iterdir()):
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


def _discard(build: Path) -> None:
    for mount in build.glob("overlay-*/merged"):
        with contextlib.suppress(OSError):
            umount(mount, UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)
    shutil.rmtree(build, ignore_errors=True)
