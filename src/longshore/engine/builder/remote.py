"""What a build takes from elsewhere: a whole context, or sources of ADD."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.build.context import (
    DEFAULT_DOCKERFILE,
    find_dockerfile,
    unpack_context,
)
from longshore.build.download import Cancellation, Downloaded, download
from longshore.build.git import GitSource, checkout, parse_git_url
from longshore.build.sources import Source, find_sources
from longshore.build.urls import redacted
from longshore.engine.bridges import to_its_end, while_wanted
from longshore.engine.builder.options import BuildOptions
from longshore.engine.builder.output import Message
from longshore.engine.builder.workspace import Workspace
from longshore.engine.engine import Engine
from longshore.errors import EngineError, InvalidParameter
from longshore.images.progress import Progress
from longshore.layers.compression import is_compressed
from longshore.layers.idmap import IdMap

if TYPE_CHECKING:
    from longshore.engine.builder.stage import StageRun

_TEXT = ("text/plain", "")
_UNNAMED = "__unnamed__"
_SNIFFED = 265
"""Bytes up to the end of a tar header's magic."""


async def fetch_remote(engine: Engine, options: BuildOptions, space: Workspace) -> bytes:
    """Fill the context from `remote`: a repository, an archive, or a Dockerfile alone; the Dockerfile.

    Raises InvalidParameter, System.
    """
    git = parse_git_url(options.remote)
    if git is not None:
        place = await asyncio.to_thread(space.fresh, "git")
        kept = git.keep_git_dir is not False
        async with _agent(engine, options, space, git) as agent:
            space.context = await checkout(git, place, keep_git_dir=kept, agent=agent)
    elif options.remote.startswith(("http://", "https://")):
        try:
            path, file = await _download(options.remote, space.fresh("remote"), lambda _, __: None)
        except EngineError as exc:
            raise type(exc)(f"error downloading remote context {redacted(options.remote)}: {exc}") from exc
        if not await asyncio.to_thread(_looks_like_archive, path):
            if file.content_type not in _TEXT and not file.content_type.startswith("text/"):
                raise InvalidParameter(
                    f"unsupported Content-Type {file.content_type!r} of {redacted(options.remote)}"
                )
            path.rename(space.context / DEFAULT_DOCKERFILE).chmod(0o644)
            return await asyncio.to_thread(find_dockerfile, space.context, "")
        await while_wanted(lambda check: _unpack(path, space.context, engine.layers.ids, check))
    else:
        raise InvalidParameter(f"remoteURL ({options.remote}) could not be recognized as URL")

    return await to_its_end(lambda: space.dockerfile(options))


async def add_git(stage: StageRun, git: GitSource, *, keep_git_dir: bool) -> Source:
    """A repository as a source of ADD."""
    place = await asyncio.to_thread(stage.build.space.fresh, "git")
    kept = keep_git_dir if git.keep_git_dir is None else git.keep_git_dir
    build = stage.build
    async with _agent(stage.engine, build.options, build.space, git) as agent:
        part = await checkout(git, place, keep_git_dir=kept, agent=agent)
    return (await asyncio.to_thread(find_sources, part, ["."], []))[0]


@asynccontextmanager
async def _agent(
    engine: Engine, options: BuildOptions, space: Workspace, git: GitSource
) -> AsyncIterator[Path | None]:
    """The socket of the SSH agent that the client lends, if it lends one and the repository needs it."""
    if not options.session or not git.remote.startswith(("git@", "ssh://")):
        yield None
        return
    from longshore.buildkit.requests import forwarded_agent, has_agent

    session = await engine.sessions.get(options.session)
    if not await has_agent(session, "default"):
        yield None
        return
    place = await asyncio.to_thread(space.fresh, "ssh")
    async with forwarded_agent(session, "default", place, (0, 0), 0o600) as agent:
        yield agent


async def add_url(
    stage: StageRun, url: str, destination: str, checksum: str, *, unpack: bool = False
) -> Source:
    """A file from the web as a source of ADD. Raises System, InvalidParameter."""
    place = await asyncio.to_thread(stage.build.space.fresh, "download")
    loop = asyncio.get_running_loop()

    def say(message: Message) -> None:
        with suppress(RuntimeError):  # the loop has closed
            loop.call_soon_threadsafe(stage.say, message)

    bars: dict[int, Progress] = {}

    def progress(more: int, expected: int) -> None:
        bars.setdefault(expected, Progress(say, "", "Downloading", expected)).advance(more)

    path, file = await _download(url, place, progress, checksum)
    stage.tell("\n")
    if not file.name and destination.endswith("/") and not unpack:
        raise InvalidParameter(f"cannot determine filename for source {redacted(url)}")
    digest = await asyncio.to_thread(_digest, path, file.name)
    return Source(place, path.name, f"file:{digest}", False, extract=unpack)


async def _download(
    url: str, place: Path, progress: Callable[[int, int], None], checksum: str = ""
) -> tuple[Path, Downloaded]:
    """Fetch a file into `place`; the connection ends with the task that waits for it.

    The thread may still be waiting for a server that does not answer: it has the open file and no name, so
    that the directory can go meanwhile.
    """
    from longshore.images.registry.threads import in_thread
    from longshore.images.registry.transport import named_failure

    unnamed = place / _UNNAMED
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file = os.fdopen(os.open(unnamed, flags, 0o600), "wb")

    def work(cancellation: Cancellation) -> Downloaded:
        with file, named_failure("GET", redacted(url)):
            return download(url, file, progress, cancellation, checksum)

    found = await in_thread(work, abandon=True)
    path = unnamed.rename(place / (found.name or _UNNAMED))
    os.utime(path, (found.modified, found.modified))
    return path, found


def _digest(path: Path, name: str) -> str:
    """Of all that matters: what it is called, too, and that it is not unpacked, as a file of a context is."""
    digest = hashlib.sha256(f"remote\0{name}\0".encode("utf-8", "surrogateescape"))
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _looks_like_archive(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(_SNIFFED)
    return is_compressed(start) or start[257:262] == b"ustar"


def _unpack(path: Path, context: Path, ids: IdMap, check: Callable[[], None]) -> None:
    with path.open("rb") as file:
        unpack_context(file, context, ids, check)
