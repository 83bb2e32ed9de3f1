"""POST /build with version=2: docker's CLI before buildx, whose BuildKit is spoken to in JSON messages."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

from longshore.buildkit.progress import SolveProgress
from longshore.buildkit.proto.control_pb2 import StatusResponse
from longshore.engine.builder.options import BuildOptions
from longshore.engine.builder.output import Message
from longshore.engine.builder.solve import Output, check_outputs, export, solve
from longshore.engine.builder.vertexes import failure_text
from longshore.engine.engine import Engine
from longshore.errors import EngineError, InvalidParameter

UPLOAD = "upload-request"

log = logging.getLogger(__name__)


async def image_solve(
    engine: Engine, options: BuildOptions, build_id: str, outputs: list[Output], body: AsyncIterator[bytes]
) -> AsyncIterator[Message]:
    """Build, and say how it goes; the build ends when nobody takes the messages any more.

    A build id that begins with `upload-request:` is no build: its body is the context of the one of that id.
    Raises InvalidParameter before any message; what fails later is the last one.
    """
    if len(outputs) > 1:
        raise InvalidParameter("multiple outputs not supported")
    if build_id.startswith(f"{UPLOAD}:"):
        await engine.build_jobs.bring(build_id.partition(":")[2], body)
        return _nothing()
    kind = outputs[0].kind if outputs else "moby"
    attributes = dict(outputs[0].attributes) if outputs else {}
    if kind in ("moby", "image") and options.tags:
        attributes["name"] = ",".join(options.tags)
    output = Output(kind, attributes)
    check_outputs([output])
    return _messages(engine, options, build_id, output, body)


async def _messages(
    engine: Engine, options: BuildOptions, build_id: str, output: Output, body: AsyncIterator[bytes]
) -> AsyncIterator[Message]:
    progress = SolveProgress()
    work = asyncio.create_task(_work(engine, options, build_id, output, body, progress), name="build")
    try:
        with engine.build_jobs.running(build_id, work):
            if not options.quiet:
                async for status in progress.follow():
                    yield _trace(status)
            await asyncio.wait([work])
        failure = _failure(work)
        if failure is not None:
            if options.quiet:  # What led to it is of interest after all.
                async for status in progress.follow():
                    yield _trace(status)
            yield failure
            return
        image = work.result()
        if image and not options.quiet:
            yield {"id": "moby.image.id", "aux": {"ID": image}}
        elif options.quiet:
            yield {"stream": f"{image}\n"}
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await work


async def _work(
    engine: Engine,
    options: BuildOptions,
    build_id: str,
    output: Output,
    body: AsyncIterator[bytes],
    progress: SolveProgress,
) -> str:
    options = replace(options, force_remove=True)  # BuildKit leaves no containers to be looked at.
    async with AsyncExitStack() as held:
        held.callback(progress.end)
        context = None if options.remote else body
        if options.remote == UPLOAD:
            context = await held.enter_async_context(engine.build_jobs.brought(build_id))
            options = replace(options, remote="")
        image = await solve(engine, options, progress, context)
        await export(engine, image, [output], options.session, progress)
    return image if output.kind in ("moby", "image") else ""


def _trace(status: StatusResponse) -> Message:
    return {"id": "moby.buildkit.trace", "aux": base64.b64encode(status.SerializeToString()).decode()}


def _failure(work: asyncio.Task[str]) -> Message | None:
    if work.cancelled():
        text = "context canceled"
    elif (exc := work.exception()) is None:
        return None
    else:
        if not isinstance(exc, EngineError | OSError):
            log.error("a build failed", exc_info=exc)
        text = failure_text(exc)
    return {"errorDetail": {"message": text}, "error": text}


async def _nothing() -> AsyncIterator[Message]:
    return
    yield {}
