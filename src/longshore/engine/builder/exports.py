"""`docker build --output type=local` and `type=tar`: the files of the result, for the client to keep."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from longshore.buildkit.filesend import send_archive, send_tree
from longshore.buildkit.progress import SolveProgress
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
    vertex = progress.vertex(
        "exporting to client directory" if kind == "local" else "exporting to client tarball"
    )
    view = engine.layers.view(chain)
    with ExitStack() as held:
        try:
            root = await to_its_end(lambda: held.enter_context(view))
            if kind == "local":
                vertex.status("copying files")
                await send_tree(caller, number, root, engine.layers.ids)
                vertex.status("copying files", done=True)
            else:
                vertex.status("sending tarball")

                def work(write: Callable[[bytes], None]) -> None:
                    rootfs = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                    try:
                        for chunk in tree_tar(rootfs, ".", engine.layers.ids, lambda path: path[2:]):
                            write(chunk)
                    finally:
                        os.close(rootfs)

                await send_archive(caller, number, chunks_of(work))
                vertex.status("sending tarball", done=True)
        except BaseException as exc:
            vertex.fail(failure_text(exc))
            raise
    vertex.complete()
