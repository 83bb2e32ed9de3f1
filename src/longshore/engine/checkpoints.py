"""Checkpoints of containers: a running container's memory and state on disk, to be started from again."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.errors import (
    Conflict,
    EngineError,
    InvalidParameter,
    NotFound,
    NotImplementedHere,
    System,
)
from longshore.layers.remove import remove_tree
from longshore.types.checkpoint import CheckpointCreateRequest, CheckpointSummary

NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")


async def checkpoint_create(engine: Engine, name: str, request: CheckpointCreateRequest) -> None:
    """POST /containers/{id}/checkpoints: CRIU writes the container's state; with `Exit` it ends then.

    Raises NotFound, Conflict if it does not run or the checkpoint exists, System with what CRIU said.
    """
    _experimental(engine)
    container = engine.containers.get(name)
    async with container.lock:
        if not container.state.Running or container.state.Restarting:
            raise Conflict(f"Container {name} not running")
        if container.config.Tty:
            raise Conflict("checkpoint not supported on containers with tty")
        path = _directory(container, request.CheckpointDir) / _valid(request.CheckpointID)
        if path.exists():
            raise Conflict(
                f"checkpoint with name {request.CheckpointID} already exists for container {container.name}"
            )
        await asyncio.to_thread(path.mkdir, 0o700, True)
        try:
            await engine.runtime.checkpoint(container.id, path, request.Exit)
        except EngineError as exc:
            await asyncio.to_thread(remove_tree, path)
            raise System(f"Cannot checkpoint container {name}: {exc}") from exc
    engine.log_container_event(container, "checkpoint")


async def checkpoint_list(engine: Engine, name: str, directory: str = "") -> list[CheckpointSummary]:
    """GET /containers/{id}/checkpoints. Raises NotFound."""
    _experimental(engine)
    place = _directory(engine.containers.get(name), directory)
    if not place.is_dir():
        return []
    return [CheckpointSummary(path.name) for path in sorted(place.iterdir()) if path.is_dir()]


async def checkpoint_delete(engine: Engine, name: str, checkpoint: str, directory: str = "") -> None:
    """DELETE /containers/{id}/checkpoints/{checkpoint}. Raises NotFound, InvalidParameter."""
    _experimental(engine)
    container = engine.containers.get(name)
    path = checkpoint_path(container, checkpoint, directory)
    assert path is not None
    await asyncio.to_thread(remove_tree, path)


def checkpoint_path(container: Container, name: str, directory: str) -> Path | None:
    """The checkpoint to start from; None if none was asked for.

    Raises InvalidParameter for a bad name, NotFound if there is no such checkpoint.
    """
    if not name:
        return None
    path = _directory(container, directory) / _valid(name)
    if not path.exists():
        raise NotFound(f"checkpoint {name} does not exist for container {container.name}")
    if not path.is_dir():
        raise System(f"{path} exists and is not a directory")
    return path


def _experimental(engine: Engine) -> None:
    if not engine.config.experimental:
        raise NotImplementedHere(
            "This experimental feature is disabled by default. "
            "Start the Docker daemon in experimental mode in order to enable it."
        )


def _valid(name: str) -> str:
    if not NAME.match(name):
        raise InvalidParameter(f"invalid checkpoint ID ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name


def _directory(container: Container, directory: str) -> Path:
    return Path(directory) if directory else container.root / "checkpoints"
