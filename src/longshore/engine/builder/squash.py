"""`docker build --squash`: all that a build added, as one layer on its base."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec

from longshore.engine.engine import Engine
from longshore.images.store import Image
from longshore.layers.extract import Extractor
from longshore.layers.layer import Layer
from longshore.layers.unpack import unpack
from longshore.types.timestamp import now


def squash_image(engine: Engine, id: str, base_id: str) -> str:
    """An image as `id` is, with one layer on top of `base_id` ("" for nothing); its id. Blocks.

    Raises NotFound if either does not exist any more.
    """
    images = engine.images.images
    image = images.get(id)
    base = images.get(base_id) if base_id else None
    above = _layers_above(images.layer(id), base)
    if not above:
        return id
    layer = engine.layers.build(
        base.chain_id or None if base else None, lambda root: _apply(engine, above, root)
    )
    try:
        described = _described(image, base, layer)
        return images.create(msgspec.json.encode(described, order="sorted"))
    finally:
        if layer is not None:
            engine.layers.release(layer)


def _layers_above(top: Layer | None, base: Image | None) -> list[Layer]:
    """Lowest first."""
    found: list[Layer] = []
    lowest = len(base.diff_ids) if base is not None else 0
    while top is not None and top.depth > lowest:
        found.insert(0, top)
        top = top.parent
    return found


def _apply(engine: Engine, above: list[Layer], root: Path) -> None:
    """Unpack one layer over the other: a file that a later one removes is gone, and not only hidden."""
    for layer in above:
        with engine.layers.tar_stream(layer) as archive:
            unpack(archive, Extractor(root, engine.layers.ids, overlay_whiteouts=False), io.BytesIO())


def _described(image: Image, base: Image | None, layer: Layer | None) -> dict[str, Any]:
    steps = len(base.history) if base is not None else 0
    created = now()
    comment = f"merge {image.id} to {base.id}" if base is not None else f"create new from {image.id}"
    merged: dict[str, Any] = {"created": created, "comment": comment}
    diff_ids = list(base.diff_ids if base is not None else [])
    if layer is None:
        merged["empty_layer"] = True
    else:
        diff_ids.append(layer.diff_id)
    history = [
        *image.history[:steps],
        *({**entry, "empty_layer": True} for entry in image.history[steps:]),
        merged,
    ]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return {**image.described, "created": created, "history": history, "rootfs": rootfs}
