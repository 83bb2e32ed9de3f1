"""Make an image of a container."""

from __future__ import annotations

import asyncio
import io
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import msgspec

from longshore import __version__
from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.images import image_event
from longshore.engine.merge import merge_config
from longshore.engine.pause import container_pause, container_unpause
from longshore.errors import Conflict, NotFound
from longshore.images.importing import host_architecture
from longshore.threads import in_own_thread
from longshore.types.codec import to_plain
from longshore.types.container import Config
from longshore.types.timestamp import now

EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""Diff id of a layer that changes nothing: 1024 zeros, an archive without entries."""


@dataclass(frozen=True)
class CommitOptions:
    """What the image is called and how its configuration differs from the container's."""

    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    changes: list[str] = field(default_factory=list)
    """Dockerfile instructions."""
    pause: bool = True
    config: Config | None = None
    """Goes before the container's own configuration, setting by setting."""


async def container_commit(engine: Engine, name: str, options: CommitOptions) -> str:
    """POST /commit: the id of the new image. Raises NotFound, InvalidParameter, Conflict."""
    container = engine.containers.get(name)
    if container.state.Dead:
        raise Conflict(f"You cannot commit container {container.id} which is Dead")
    if container.state.RemovalInProgress:
        raise Conflict(f"You cannot commit container {container.id} which is being removed")
    config = committed_config(container.config, options)
    async with AsyncExitStack() as stack:
        state = container.state
        if options.pause and state.Running and not state.Paused and not state.Restarting:
            await container_pause(engine, container.id)
            stack.push_async_callback(_unpause, engine, container)
        id = await in_own_thread(lambda: _make_image(engine, container, config, options))
    reference = ""
    if options.repo:
        tagged = await asyncio.to_thread(engine.images.tag, id, options.repo, options.tag)
        reference = tagged.familiar
        image_event(engine, "tag", id, reference)
    engine.log_container_event(container, "commit", comment=options.comment, imageID=id, imageRef=reference)
    return id


async def _unpause(engine: Engine, container: Container) -> None:
    try:
        await container_unpause(engine, container.id)
    except (Conflict, NotFound):
        return  # Somebody else did, or it was killed.


def committed_config(of_container: Config, options: CommitOptions) -> Config:
    """The image's configuration. Raises InvalidParameter for a change that is no instruction."""
    from longshore.build.changes import apply_changes

    config = apply_changes(deepcopy(options.config or of_container), options.changes)
    merge_config(config, of_container)
    return config


def _make_image(engine: Engine, container: Container, config: Config, options: CommitOptions) -> str:
    layers = engine.layers
    rw_layer = layers.get_rw_layer(container.id)
    with rw_layer.tar_stream() as changes:
        layer = layers.register(cast(BinaryIO, io.BufferedReader(changes, 1 << 18)), rw_layer.parent)
    try:
        diff_ids = layer.diff_ids
        empty = layer.diff_id == EMPTY_LAYER
        if empty:
            diff_ids = diff_ids[:-1]
        described = _describe(engine, container, config, options, diff_ids, empty=empty)
        id = engine.images.images.create(msgspec.json.encode(described, order="sorted"))
    finally:
        layers.release(layer)
    if engine.images.images.has(container.record.Image):
        engine.images.images.set_parent(id, container.record.Image)
    return id


def _describe(
    engine: Engine,
    container: Container,
    config: Config,
    options: CommitOptions,
    diff_ids: list[str],
    *,
    empty: bool,
) -> dict[str, Any]:
    created = now()
    step: dict[str, Any] = {"created": created, "created_by": " ".join(container.config.cmd)}
    told = {"author": options.author, "comment": options.comment, "empty_layer": empty}
    step |= {key: value for key, value in told.items() if value}
    history, architecture, variant = [], host_architecture(), ""
    try:
        parent = engine.images.images.get(container.record.Image)
        history, architecture, variant = parent.history, parent.architecture or architecture, parent.variant
    except NotFound:
        pass  # The image was removed by force; its layers are still here.
    described: dict[str, Any] = {
        "architecture": architecture,
        "config": to_plain(config),
        "container": container.id,
        "container_config": to_plain(container.config),
        "created": created,
        "docker_version": __version__,
        "history": [*history, step],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    extra = {"author": options.author, "comment": options.comment, "variant": variant}
    return described | {key: value for key, value in extra.items() if value}
