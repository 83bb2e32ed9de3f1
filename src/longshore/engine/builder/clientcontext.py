"""A build context that is the client's own: its Dockerfile, its .dockerignore, and the rest if needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from posixpath import dirname, join

from longshore.build.context import DEFAULT_DOCKERFILE, IGNORE_FILE
from longshore.build.patterns import clean, read_ignore_file
from longshore.buildkit.filesync import Announced, Filters, receive
from longshore.buildkit.progress import SolveProgress, Vertex
from longshore.buildkit.sessions import Session
from longshore.engine.builder.vertexes import failure_text
from longshore.engine.builder.workspace import Workspace
from longshore.engine.engine import Engine
from longshore.errors import InvalidParameter
from longshore.linux.rootfs_open import read_in_root

_DOCKERFILE, _CONTEXT = "dockerfile", "context"
"""What clients call the two directories that they offer."""


class ClientContext:
    """Fetches from `session`. `filename`: the Dockerfile, in the directory that the client offers for it."""

    def __init__(
        self, engine: Engine, session: Session, progress: SolveProgress, space: Workspace, filename: str
    ) -> None:
        self._engine = engine
        self._session = session
        self._progress = progress
        self._space = space
        self._filename = clean("/" + (filename or DEFAULT_DOCKERFILE)).lstrip("/")
        self._own_ignore: bytes | None = None
        self._filled = False

    async def dockerfile(self) -> bytes:
        """The Dockerfile; with it comes the .dockerignore that is called after it.

        Raises InvalidParameter if there is none, or nothing in it; System, Unavailable.
        """
        name = self._filename
        names = [name, f"{name}{IGNORE_FILE}"]
        lower = join(dirname(name), DEFAULT_DOCKERFILE.lower())
        if name.rpartition("/")[2] == DEFAULT_DOCKERFILE:
            names.append(lower)
        with self._vertex(f"load build definition from {name}") as vertex:
            place = await self._fetch(vertex, _DOCKERFILE, Filters(follow=names))
            content = await _read(place, name)
            if content is None and lower in names:
                content = await _read(place, lower)
            self._own_ignore = await _read(place, f"{name}{IGNORE_FILE}")
            if content is None:
                raise InvalidParameter(f"failed to read dockerfile: open {name}: no such file or directory")
            if not content:
                raise InvalidParameter("the Dockerfile cannot be empty")
        return content

    async def context(self, paths: tuple[str, ...] | None) -> Path:
        """The context without what its .dockerignore leaves out; `paths`: these and their links only.

        Raises InvalidParameter, System, Unavailable.
        """
        ignore = self._own_ignore
        if ignore is None:
            ignore = await self._ignore_file(_CONTEXT, f"load {IGNORE_FILE}")
        filters = Filters(read_ignore_file(ignore) if ignore else [], paths or [])
        with self._vertex("load build context") as vertex:
            if self._filled:
                return await self._fetch(vertex, _CONTEXT, filters)
            self._filled = True
            space = self._space
            await self._receive(vertex, _CONTEXT, filters, lambda what: space.hold(what.files, what.size))
            return space.context

    async def directory(self, name: str) -> Path:
        """Another directory that the client offers, without what its .dockerignore leaves out.

        Raises InvalidParameter, System, Unavailable.
        """
        ignore = await self._ignore_file(name, f"[context {name}] load {IGNORE_FILE}")
        filters = Filters(exclude=read_ignore_file(ignore) if ignore else [])
        with self._vertex(f"[context {name}] load from client") as vertex:
            return await self._fetch(vertex, name, filters)

    async def _ignore_file(self, name: str, told: str) -> bytes | None:
        with self._vertex(told) as vertex:
            place = await self._fetch(vertex, name, Filters(follow=[IGNORE_FILE]))
            return await _read(place, IGNORE_FILE)

    async def _fetch(self, vertex: Vertex, name: str, filters: Filters) -> Path:
        place = await asyncio.to_thread(self._space.fresh, "synced")
        await self._receive(vertex, name, filters, lambda _: place)
        return place

    async def _receive(
        self, vertex: Vertex, name: str, filters: Filters, prepare: Callable[[Announced], Path]
    ) -> None:
        told = f"transferring {name}:"
        size = 0

        def progress(received: int) -> None:
            nonlocal size
            size = max(size, received)
            vertex.status(told, received)

        await receive(self._session, name, filters, prepare, self._engine.layers.ids, progress)
        vertex.status(told, size, done=True)

    @contextmanager
    def _vertex(self, name: str) -> Iterator[Vertex]:
        vertex = self._progress.vertex(name if name.startswith("[") else f"[internal] {name}")
        try:
            yield vertex
        except BaseException as exc:
            vertex.fail(failure_text(exc))
            raise
        vertex.complete()


async def _read(place: Path, name: str) -> bytes | None:
    try:
        return await asyncio.to_thread(read_in_root, place, name)
    except OSError as exc:
        raise InvalidParameter(f"{name}: {(exc.strerror or str(exc)).lower()}") from None
