"""`docker build --output type=local` and `type=tar`: the files of the result, for the client to keep."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, aclosing

from longshore.buildkit.filesend import send_archive, send_tree
from longshore.buildkit.progress import SolveProgress
from longshore.buildkit.sessions import Session
from longshore.engine.bridges import chunks_of, to_its_end
from longshore.engine.builder.vertexes import failure_text
from longshore.engine.engine import Engine
from longshore.layers.difftar import tree_tar


async def export_files(
    engine: Engine, image: str, kind: str, number: int, session: str, progress: SolveProgress
) -> None:
    """Send the files of the image, as a tree or as an archive, to the client's place `number`.

    Raises NotFound, System, Unavailable.
    """
    caller = await engine.sessions.get(session)
    chain = engine.images.images.get(image).chain_id or None
    name, told, send = "directory", "copying files", _send_tree
    if kind == "tar":
        name, told, send = "tarball", "sending tarball", _send_archive
    vertex = progress.vertex(f"exporting to client {name}")
    try:
        vertex.status(told)
        await send(engine, chain, caller, number)
        vertex.status(told, done=True)
    except BaseException as exc:
        vertex.fail(failure_text(exc))
        raise
    vertex.complete()


async def _send_tree(engine: Engine, chain: str | None, caller: Session, number: int) -> None:
    async with AsyncExitStack() as held:
        views = ExitStack()
        held.push_async_callback(to_its_end, views.close)
        view = engine.layers.view(chain)
        root = await to_its_end(lambda: views.enter_context(view))
        await send_tree(caller, number, root, engine.layers.ids)


async def _send_archive(engine: Engine, chain: str | None, caller: Session, number: int) -> None:
    def work(write: Callable[[bytes], None]) -> None:
        # The view is this thread's own, which may go on for a moment after its client has gone.
        with engine.layers.view(chain) as root:
            rootfs = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for chunk in tree_tar(rootfs, ".", engine.layers.ids, lambda path: path[2:]):
                    write(chunk)
            finally:
                os.close(rootfs)

    async with aclosing(chunks_of(work)) as chunks:
        await send_archive(caller, number, chunks)
