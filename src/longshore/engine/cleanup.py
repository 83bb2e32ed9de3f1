"""What a container holds while it runs, and how it is given back.

Each `release_…` is idempotent and needs nothing but the container, so that the same code undoes a failed
start, follows an exit, and tidies up after a daemon that died in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.errors import EngineError, NotFound, System
from longshore.tracing import span

log = logging.getLogger(__name__)


async def mount_rootfs(engine: Engine, container: Container) -> Path:
    """Mount the container's file system. Raises System if it turns up in another place than before."""
    rw_layer = engine.layers.get_rw_layer(container.id)
    rootfs = await asyncio.to_thread(rw_layer.mount, container.record.MountLabel)
    if container.rootfs is not None and container.rootfs != rootfs:
        await asyncio.to_thread(rw_layer.unmount)
        raise System(
            f"driver {engine.layers.driver_name} is returning inconsistent paths for container "
            f"{container.id} ('{container.rootfs}' then '{rootfs}')"
        )
    container.rootfs = rootfs
    return rootfs


async def release_rootfs(engine: Engine, container: Container) -> None:
    """Unmount the container's file system if it is mounted for a run."""
    if container.rootfs is None:
        return
    container.rootfs = None
    await asyncio.to_thread(engine.layers.get_rw_layer(container.id).unmount)


async def release_resources(engine: Engine, container: Container) -> None:
    """After an exit: task, network, volumes and file system, beside each other.

    A part that cannot be given back is logged; the others are, and the container still comes to rest.
    """
    from longshore.engine.mounts import release_mounts
    from longshore.engine.networking import release_network

    async def attempt(what: str, work: Coroutine[None, None, object]) -> bool:
        try:
            with span(f"release {what}"):
                await work
        except NotFound:
            return True
        except (OSError, EngineError) as exc:
            log.error("container %s: could not release its %s: %s", container.id[:12], what, exc)
        except Exception:
            log.exception("container %s: could not release its %s", container.id[:12], what)
        else:
            return True
        return False

    # Deleting the task takes the runtime 30 ms, and nobody needs to wait: with the first process of a PID
    # namespace the kernel has ended all others. Only a next start does. Without a namespace of its own,
    # processes may be left that hold the mounts busy until the task is deleted.
    deletion = engine.spawn(
        attempt("task", engine.runtime.delete(container.id)), f"task deletion of {container.id[:12]}"
    )
    container.task_deletion = deletion
    if container.host_config.PidMode:
        await deletion
    await asyncio.gather(
        attempt("network", release_network(engine, container)),
        attempt("mounts", release_mounts(engine, container)),
        attempt("file system", release_rootfs(engine, container)),
    )
