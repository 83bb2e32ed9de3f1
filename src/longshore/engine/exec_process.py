"""From a container and a command to the bytes of the OCI process that runs in it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from longshore.containers.container import Container
from longshore.errors import Conflict, InvalidParameter, System
from longshore.oci.apparmor import DEFAULT_PROFILE, ensure_default_profile
from longshore.oci.exec import ExecInput, exec_process
from longshore.oci.input import SpecInput
from longshore.oci.spec import encode_spec
from longshore.types.resources import Ulimit

if TYPE_CHECKING:
    from longshore.engine.engine import Engine


async def build_process(
    engine: Engine, container: Container, wanted: ExecInput, size: tuple[int, int] | None
) -> bytes:
    """The OCI process as JSON. `size` of the terminal, height first, goes before the one in `wanted`.

    Raises System for a user that the container does not know, as dockerd does, and Conflict if the
    container stopped meanwhile.
    """
    config, rootfs = engine.config, container.rootfs
    if rootfs is None:
        raise Conflict(f"container {container.id} is not running")
    described = SpecInput(
        id=container.id,
        config=container.config,
        host_config=container.host_config,
        rootfs=rootfs,
        hostname=container.config.Hostname,
        no_new_privileges=config.no_new_privileges,
        process_label=container.record.ProcessLabel,
        default_ulimits=tuple(
            Ulimit(one.Name or name, one.Hard, one.Soft) for name, one in config.default_ulimits.items()
        ),
    )
    if size is not None:
        wanted = replace(wanted, console_size=size)
    try:
        # In a thread: it reads passwd and group of the container, which may lie on a slow disk.
        process = await asyncio.to_thread(exec_process, described, engine.host, wanted)
        if process.get("apparmorProfile") == DEFAULT_PROFILE:
            await asyncio.to_thread(ensure_default_profile)
    except InvalidParameter as exc:
        raise System(exc.message) from exc
    return encode_spec(process)
