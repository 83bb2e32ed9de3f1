"""`COPY --link` and `ADD --link`: layers that know nothing of what they lie on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.build.owners import Owner, parse_owner
from longshore.engine.engine import Engine
from longshore.layers.layer import Layer

if TYPE_CHECKING:
    from longshore.engine.builder.stage import StageRun

_NUMBERS = re.compile(r"\d+(:\d+)?")


def linked_layer(engine: Engine, parent: str | None, fill: Callable[[Path], None]) -> Layer | None:
    """A layer of what `fill` writes into nothing, put on top of the chain `parent`. Blocks.

    What is below it is neither looked at nor followed: a directory of this layer takes the place of a link
    there, and of another directory's owner and mode.
    """
    alone = engine.layers.build(None, fill)
    if alone is None:
        return None
    try:
        return on_top(engine, alone, parent)
    finally:
        engine.layers.release(alone)


def on_top(engine: Engine, layer: Layer, parent: str | None) -> Layer:
    """The same layer, bit for bit, on top of another chain. Blocks. Raises NotFound."""
    if parent is None:
        return engine.layers.get(layer.chain_id)
    with engine.layers.tar_stream(layer) as archive:
        return engine.layers.register(archive, parent, layer.diff_id)


def layer_of_step(engine: Engine, image_id: str) -> Layer | None:
    """A counted reference to the layer that an image's last step made; None if it made none.

    Raises NotFound if the image, or its layer, has gone meanwhile.
    """
    image = engine.images.images.get(image_id)
    if not image.history or image.history[-1].get("empty_layer"):
        return None
    return engine.layers.get(image.chain_id)


async def resolve_owner(stage: StageRun, chown: str) -> Owner:
    """Whom --chown means. Names are the only thing that is asked of the layers below, so ids are the step's.

    Raises InvalidParameter.
    """

    def work() -> Owner:
        with stage.engine.layers.view(stage.parent_chain()) as root:
            return parse_owner(chown, root)

    if _NUMBERS.fullmatch(chown):
        return parse_owner(chown, Path("/nonexistent"))
    return await asyncio.to_thread(work)


async def reuse(stage: StageRun, image_id: str) -> Layer | None:
    """The layer of that image's step for this stage, too. Raises NotFound."""

    def work(_: Callable[[], None]) -> Layer | None:
        layer = layer_of_step(stage.engine, image_id)
        if layer is None:
            return None
        try:
            return on_top(stage.engine, layer, stage.parent_chain())
        finally:
            stage.engine.layers.release(layer)

    return await stage.make_layer(work)
