"""The image of each step: found if it was made before, and made if not.

The cache has no records of its own. Every step's image is kept, with its parent, and tells by the command
of its `container_config` what was done: dockerd's classic builder finds it by that, and so does this one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from longshore import __version__
from longshore.engine.engine import Engine
from longshore.errors import NotFound
from longshore.images.importing import host_architecture
from longshore.images.store import Image
from longshore.layers.layer import Layer, chain_id
from longshore.types.codec import convert, to_plain
from longshore.types.container import Config
from longshore.types.timestamp import now

EMPTY_CONFIG = Config()
_NOT_COMPARED = ("Hostname", "Domainname", "Image")


class StepCache:
    """Finds images of steps. `sources` are images of which each step counts as if it was made here."""

    def __init__(self, engine: Engine, sources: list[Image], *, enabled: bool) -> None:
        self._images = engine.images.images
        self._layers = engine.layers
        self._sources = sources
        self._enabled = enabled
        self._lock = asyncio.Lock()

    async def find(self, parent: str, step: Config) -> str:
        """The image that `step` made of `parent` ("" for nothing) before; "" if there is none."""
        if not self._enabled:
            return ""
        found = self._local(parent, step)  # All of it is in memory.
        if not self._sources:
            return found
        if found and any(self._is_ancestor(found, source.id) for source in self._sources):
            return found
        async with self._lock:
            return await asyncio.to_thread(self._of_sources, parent, step)

    def find_linked(self, step: Config) -> str:
        """An image whose last step is the same --link, whatever it was made of; "" if there is none."""
        if not self._enabled:
            return ""
        for image in self._images.all():
            made_by = image.described.get("container_config")
            if self._images.is_built_here(image.id) and isinstance(made_by, dict):
                command = made_by.get("Cmd")
                if isinstance(command, list) and command[-1:] == step.cmd[-1:]:
                    return image.id
        return ""

    def _local(self, parent: str, step: Config) -> str:
        candidates = self._images.children(parent) if parent else self._images.without_parent()
        wanted = _comparable(to_plain(step))
        best: Image | None = None
        for id in candidates:
            try:
                image = self._images.get(id)
            except NotFound:
                continue
            made_by = image.described.get("container_config")
            if not self._images.is_built_here(id) or not isinstance(made_by, dict):
                continue
            if _comparable(made_by) == wanted and (best is None or best.created < image.created):
                best = image
        return best.id if best is not None else ""

    def _is_ancestor(self, id: str, of: str) -> bool:
        while of and of != id:
            of = self._images.parent(of)
        return of == id

    def _of_sources(self, parent_id: str, step: Config) -> str:
        parent = self._images.get(parent_id) if parent_id else None
        steps = len(parent.history) if parent is not None else 0
        for source in self._sources:
            if not _begins_with(source, parent) or len(source.history) <= steps:
                continue
            if " ".join(step.cmd) != source.history[steps].get("created_by", ""):
                continue
            if len(source.history) - 1 == steps:
                if parent is not None:
                    self._images.set_parent(source.id, parent.id)
                return source.id
            self._sources = [source]  # One source from here on, or layers of several would mix.
            return self._restore(parent, source, step, steps)
        return ""

    def _restore(self, parent: Image | None, source: Image, step: Config, steps: int) -> str:
        """An image of the source's next step, which was never an image here."""
        entry = source.history[steps]
        diff_ids = list(parent.diff_ids if parent is not None else [])
        if not entry.get("empty_layer"):
            diff_ids.append(source.diff_ids[len(diff_ids)])
        described = {
            "architecture": source.architecture,
            "config": to_plain(step),
            "container_config": to_plain(step),
            "created": entry.get("created", now()),
            "docker_version": __version__,
            "history": source.history[: steps + 1],
            "os": source.os,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        id = self._images.create(msgspec.json.encode(described, order="sorted"))
        self._images.set_built_here(id, parent.id if parent is not None else "")
        return id


def commit_step(
    engine: Engine,
    parent_id: str,
    config: Config,
    step: Config,
    layer: Layer | None,
    container_id: str,
    author: str,
) -> str:
    """Make the image of a step; its id. `layer` is what the step changed. Blocks. Raises NotFound."""
    images = engine.images.images
    parent = images.get(parent_id) if parent_id else None
    created = now()
    entry: dict[str, Any] = {"created": created, "created_by": " ".join(step.cmd)}
    entry |= {"author": author} if author else {}
    entry |= {"empty_layer": True} if layer is None else {}
    diff_ids = list(parent.diff_ids if parent is not None else [])
    if layer is not None:
        diff_ids.append(layer.diff_id)
        assert chain_id(diff_ids) == layer.chain_id, "the layer lies on top of another image"
    described: dict[str, Any] = {
        "architecture": (parent.architecture if parent is not None else "") or host_architecture(),
        "config": to_plain(config),
        "container": container_id,
        "container_config": to_plain(step),
        "created": created,
        "docker_version": __version__,
        "history": [*(parent.history if parent is not None else []), entry],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    extra = {"author": author, "variant": parent.variant if parent is not None else ""}
    described |= {key: value for key, value in extra.items() if value}
    id = images.create(msgspec.json.encode(described, order="sorted"))
    images.set_built_here(id, parent_id)
    return id


def image_config(image: Image) -> Config:
    """The configuration that an image's steps begin with."""
    config = convert(image.config, Config)
    config.Hostname = config.Domainname = ""
    return config


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if value and key not in _NOT_COMPARED}


def _begins_with(image: Image, parent: Image | None) -> bool:
    """Whether the history and the layers of `parent` are the beginning of the image's."""
    if parent is None:
        return True
    layers = sum(not entry.get("empty_layer") for entry in parent.history)
    return (
        len(image.history) > len(parent.history)
        and image.history[: len(parent.history)] == parent.history
        and image.diff_ids[:layers] == parent.diff_ids[:layers]
    )
