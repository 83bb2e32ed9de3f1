"""Remove a container and what is its own: its layer, its logs, its anonymous volumes."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.exec import forget_execs
from longshore.engine.kill import kill_and_wait
from longshore.engine.logging_driver import keep_output
from longshore.engine.mounts import release_mount_points, release_mounts
from longshore.engine.networking import release_network
from longshore.engine.restart_policy import cancel_restart
from longshore.errors import Conflict, EngineError, NotFound, System
from longshore.layers.remove import remove_tree
from longshore.logs.intake import discard

log = logging.getLogger(__name__)


async def container_remove(
    engine: Engine, name: str, *, force: bool = False, volumes: bool = False, link: bool = False
) -> None:
    """DELETE /containers/{id}. `force` kills a running container, `volumes` takes its anonymous ones along.

    Raises NotFound, Conflict if it runs (without force) or another removal is under way, System if
    something of it cannot be removed: the container is dead then, and removing it again goes on.
    """
    container = engine.containers.get(name)
    if link:
        await _remove_link(engine, container, name)
        return
    if container.state.RemovalInProgress:
        raise Conflict(f"removal of container {name} is already in progress")
    if container.state.Running and not force:
        raise Conflict(_still_running(container))
    container.state.RemovalInProgress = True
    try:
        await _remove(engine, container, name, force=force, volumes=volumes)
    finally:
        container.state.RemovalInProgress = False


async def _remove(engine: Engine, container: Container, name: str, *, force: bool, volumes: bool) -> None:
    while True:
        if container.state.Running:
            if not force:
                raise Conflict(_still_running(container))
            try:
                await kill_and_wait(engine, container)
            except Conflict:
                pass  # It ended by itself between the look and the signal.
            except EngineError as exc:
                raise System(f"cannot remove container {name!r}: could not kill container: {exc}") from exc
        await container.lock.acquire()
        if not container.state.Running:
            break
        container.lock.release()  # Somebody started it in between.
    try:
        if container.removed:
            raise NotFound(f"No such container: {name}")
        cancel_restart(container)
        # From here on it is known on disk that it has to go, and a daemon that is restarted goes on with it.
        container.state.Dead = True
        await engine.containers.save(container)
        try:
            await _remove_everything(engine, container, volumes=volumes)
        except (OSError, EngineError) as exc:
            container.set_removed(str(exc))
            raise System(f"container {container.id}: {exc}") from exc
        container.set_removed()
    finally:
        container.lock.release()
    engine.log_container_event(container, "destroy")


async def _remove_everything(engine: Engine, container: Container, *, volumes: bool) -> None:
    streams = engine.streams.pop(container.id, None)
    if streams is not None:
        streams.stop()
    deletion = container.task_deletion
    if deletion is None or (deletion.done() and not deletion.result()):
        # A start or an exit that was cut off, or for which containerd was away, may have left a task. One
        # that is just being deleted is in nobody's way; should the daemon die first, the next one deletes it.
        with contextlib.suppress(NotFound):
            await engine.runtime.delete(container.id)
    await release_network(engine, container)
    await release_mounts(engine, container)
    await release_mount_points(engine, container, remove_anonymous=volumes)
    async with container.save_lock:  # A save that comes late must not write into what is gone.
        await asyncio.to_thread(_remove_files, engine, container)
        container.removed = True
    engine.containers.forget(container)
    engine.logs.pop(container.id, None)
    forget_execs(engine, container)
    engine.traces.forget(container.id)


def _remove_files(engine: Engine, container: Container) -> None:
    with contextlib.suppress(NotFound):  # An earlier removal got this far.
        engine.layers.release_rw_layer(engine.layers.get_rw_layer(container.id))
    discard(keep_output(engine, container).directory)
    # The record goes last: until then a daemon that is restarted knows that there is something to remove.
    for entry in sorted(container.root.iterdir() if container.root.exists() else []):
        if entry.name != "config.v2.json":
            remove_tree(entry)
    remove_tree(container.root)


async def _remove_link(engine: Engine, container: Container, name: str) -> None:
    parent_name, _, alias = name.removeprefix("/").rpartition("/")
    if not parent_name:
        raise Conflict("Conflict, cannot remove the default link name of the container")
    parent = engine.containers.get(parent_name)
    async with parent.lock:
        kept = [
            entry
            for entry in parent.host_config.Links or []
            if entry.partition(":")[2].rpartition("/")[2] != alias
        ]
        parent.host_config.Links = kept or None
        await engine.containers.save(parent)


def _still_running(container: Container) -> str:
    if container.state.Paused:
        why = "container is paused and must be unpaused first"
    else:
        state = "restarting" if container.state.Restarting else "running"
        why = f"container is {state}: stop the container before removing or force remove"
    return f'cannot remove container "/{container.name}": {why}'
