"""Solve a Dockerfile for a client that speaks BuildKit: it is told of vertexes, and asked for what is needed.

The build itself is the one of `build.py`. Frontend and exporters are the engine's own: what a `# syntax=`
line names is not fetched.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from longshore.build.dockerfile import parse
from longshore.build.stages import read_program
from longshore.build.urls import redacted
from longshore.buildkit.progress import SolveProgress
from longshore.buildkit.sessions import Session
from longshore.engine.bridges import evaluated, to_its_end
from longshore.engine.builder.build import Build, LoadContext, fetch_context
from longshore.engine.builder.clientcontext import ClientContext
from longshore.engine.builder.namedcontexts import NamedContexts
from longshore.engine.builder.options import BuildOptions
from longshore.engine.builder.vertexes import VertexOutput, failure_text
from longshore.engine.builder.workspace import Workspace, workspace
from longshore.engine.engine import Engine
from longshore.errors import EngineError, InvalidParameter, NotFound, System
from longshore.images.reference import parse as parse_reference

UPLOADED = "http://buildkit-session/"
"""Begins the context of a client that sends an archive over its session."""

_PARSE_ERROR = re.compile(r"dockerfile parse error on line (\d{1,9}):")


@dataclass(frozen=True)
class Output:
    """What is to become of the result: an exporter of BuildKit's, with its attributes."""

    kind: str
    attributes: dict[str, str] = field(default_factory=dict)


class SolveFailed(System):
    """A build came to nothing; `line` of the Dockerfile tells where, if it is not 0."""

    def __init__(self, message: str, filename: str, content: bytes, line: int) -> None:
        super().__init__(message)
        self.filename = filename
        self.content = content
        self.line = line


async def solve(
    engine: Engine, options: BuildOptions, progress: SolveProgress, body: AsyncIterator[bytes] | None = None
) -> str:
    """Build; the id of the image that comes of it. `body`: the context, if it came with the request.

    Raises SolveFailed, or OSError. Nothing of the build goes on after that.
    """
    held = ExitStack()
    name = options.dockerfile or "Dockerfile"
    content = b""
    build: Build | None = None
    try:
        space = await to_its_end(lambda: held.enter_context(workspace(engine)))
        content, load, client = await _inputs(engine, options, progress, space, body)
        program = await evaluated(len(content), lambda: read_program(parse(content, name)))
        output = VertexOutput(progress, program)
        named = NamedContexts(options.contexts, client) if options.contexts else None
        build = Build(engine, options, space, program, [], output, load, named)
        await _import_caches(build, output, progress)
        return await build.solve()
    except EngineError as exc:
        found = _PARSE_ERROR.match(exc.message)
        line = build.failed_line if build is not None else int(found[1]) if found else 0
        raise SolveFailed(failure_text(exc), name, content, line) from exc
    finally:
        engine.spawn(asyncio.to_thread(held.close), "removal of a build's files")


async def _import_caches(build: Build, output: VertexOutput, progress: SolveProgress) -> None:
    """Pull the images that steps may be found in. What cannot be had is told, and the build goes on."""
    names = [] if build.options.no_cache else build.options.cache_from
    for name in names:
        with suppress(NotFound, InvalidParameter):
            build.engine.images.resolve(name)
            continue
        from longshore.engine.builder.base import find_base

        step = output.transferring(f"importing cache manifest from {name}")
        try:
            await find_base(build, name, build.options.platform, step.transfer)
            step.complete()
        except (EngineError, OSError) as exc:
            step.fail(exc)
        except BaseException as exc:
            step.fail(exc)
            raise
    if names:
        build.use_caches()


async def _inputs(
    engine: Engine,
    options: BuildOptions,
    progress: SolveProgress,
    space: Workspace,
    body: AsyncIterator[bytes] | None,
) -> tuple[bytes, LoadContext | None, ClientContext | None]:
    """The Dockerfile, what loads the context once it is needed (None if it is there), and from whom."""
    remote = options.remote
    client: ClientContext | None = None
    if options.session and (body is None or options.contexts):
        session = await _session(engine, options)
        client = ClientContext(engine, session, progress, space, options.dockerfile)
    if body is None and remote in ("", "client-session"):
        if client is None:
            raise InvalidParameter("the build needs a session with its client, and none is named")
        return await client.dockerfile(), client.context, client
    name = "[internal] load remote build context"
    if remote.startswith(UPLOADED):
        from longshore.buildkit.requests import uploaded

        body = uploaded(await _session(engine, options), urlsplit(remote).path)
        options = replace(options, remote="")
    elif remote:
        name = f"[internal] load remote build context {redacted(remote)}"
    vertex = progress.vertex(name)
    try:
        content = await fetch_context(engine, options, body or _nothing(), space)
    except BaseException as exc:
        vertex.fail(failure_text(exc))
        raise
    vertex.complete()
    if options.local_dockerfile:
        if client is None:
            raise InvalidParameter("the Dockerfile is the client's, and no session with it is named")
        content = await client.dockerfile()
    return content, None, client


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _session(engine: Engine, options: BuildOptions) -> Session:
    if not options.session:
        raise InvalidParameter("the build needs a session with its client, and none is named")
    return await engine.sessions.get(options.session)


async def export(
    engine: Engine, image: str, outputs: list[Output], session: str, progress: SolveProgress
) -> dict[str, str]:
    """Do with the image what was asked; what the client is told of it. Raises EngineError."""
    told: dict[str, str] = {}
    for number, output in enumerate(outputs):
        if output.kind in ("", "cacheonly"):
            continue
        if output.kind in ("moby", "image"):
            told |= await _name(engine, image, output, progress)
        elif output.kind in ("local", "tar"):
            from longshore.engine.builder.exports import export_files

            await export_files(engine, image, output.kind, number, session, progress)
        else:
            raise InvalidParameter(f"exporter {output.kind!r} could not be found")
    return told


def check_outputs(outputs: list[Output]) -> None:
    """Raises InvalidParameter for what cannot become of a result, before anything is built."""
    for output in outputs:
        if output.kind not in ("", "cacheonly", "moby", "image", "local", "tar"):
            raise InvalidParameter(
                f"exporter {output.kind!r} could not be found: "
                "there are images, local directories and tar archives"
            )
        for name in _names(output):
            if parse_reference(name).digest:
                raise InvalidParameter("build tag cannot contain a digest")


async def _name(engine: Engine, image: str, output: Output, progress: SolveProgress) -> dict[str, str]:
    vertex = progress.vertex("exporting to image")
    vertex.status("exporting layers", done=True)
    vertex.status(f"writing image {image}", done=True)
    names = []
    try:
        for name in _names(output):
            reference = parse_reference(name).tagged
            await asyncio.to_thread(engine.images.tag, image, reference.name, reference.tag)
            names.append(str(reference))
            vertex.status(f"naming to {reference}", done=True)
            labels = engine.images.images.get(image).labels
            engine.events.publish("image", "tag", image, {**labels, "name": reference.familiar})
    except BaseException as exc:
        vertex.fail(failure_text(exc))
        raise
    vertex.complete()
    told = {"containerimage.digest": image, "containerimage.config.digest": image}
    return told | ({"image.name": ",".join(names)} if names else {})


def _names(output: Output) -> list[str]:
    return [name for name in output.attributes.get("name", "").split(",") if name]
