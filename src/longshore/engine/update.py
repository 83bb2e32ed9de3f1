"""Change a container's limits and restart policy."""

from __future__ import annotations

import msgspec

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.verify import verify_container_settings
from longshore.errors import Conflict, EngineError
from longshore.oci.resources import resources
from longshore.types.codec import names
from longshore.types.container import HostConfig
from longshore.types.resources import Resources
from longshore.types.stats import UpdateRequest, UpdateResponse

UPDATABLE = names(
    "BlkioWeight CpuShares NanoCpus CpuPeriod CpuQuota CpusetCpus CpusetMems Memory MemorySwap "
    "MemoryReservation KernelMemory CpuRealtimePeriod CpuRealtimeRuntime"
)
"""Limits that can be changed; zero or empty leaves each as it is."""


async def container_update(engine: Engine, name: str, request: UpdateRequest) -> UpdateResponse:
    """POST /containers/{id}/update: of the record, and of the cgroup if the container runs.

    Raises NotFound, InvalidParameter, Conflict for settings that contradict those there are, System.
    """
    asked = HostConfig(**{field: getattr(request, field) for field in Resources.__struct_fields__})
    asked.RestartPolicy = request.RestartPolicy
    if asked.PidsLimit is not None and asked.PidsLimit <= 0:
        asked.PidsLimit = 0  # Docker's "no limit"
    warnings = verify_container_settings(engine, asked, None, update=True)
    container = engine.containers.get(name)
    async with container.lock:
        await _update(engine, container, asked)
    engine.log_container_event(container, "update")
    return UpdateResponse(warnings or None)


async def _update(engine: Engine, container: Container, asked: HostConfig) -> None:
    state, before = container.state, container.host_config
    try:
        if state.RemovalInProgress or state.Dead or container.removed:
            raise Conflict('container is marked for removal and cannot be "update"')
        updated = merge_update(before, asked)
        # As in dockerd, real-time limits are recorded, and count from the next start on.
        now = msgspec.structs.replace(asked, CpuRealtimePeriod=0, CpuRealtimeRuntime=0)
        limits = resources(now, engine.host)
        if limits and state.Running and not state.Restarting:
            await engine.runtime.update(container.id, msgspec.json.encode(limits))
    except EngineError as exc:
        raise type(exc)(f"Cannot update container {container.id}: {exc.message}") from exc
    container.host_config = updated
    await engine.containers.save(container)


def merge_update(before: HostConfig, asked: HostConfig) -> HostConfig:
    """`before` with what is asked for. Raises Conflict, worded as Docker words it."""
    for nano, other, told in (
        (asked.NanoCpus, before.CpuPeriod, "Nano CPUs cannot be updated as CPU Period has"),
        (asked.NanoCpus, before.CpuQuota, "Nano CPUs cannot be updated as CPU Quota has"),
        (before.NanoCpus, asked.CpuPeriod, "CPU Period cannot be updated as NanoCPUs has"),
        (before.NanoCpus, asked.CpuQuota, "CPU Quota cannot be updated as NanoCPUs has"),
    ):
        if nano > 0 and other > 0:
            raise Conflict(f"Conflicting options: {told} already been set")
    if 0 < before.MemorySwap < asked.Memory and not asked.MemorySwap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )
    policy = asked.RestartPolicy
    if before.AutoRemove and policy.Name not in ("", "no"):
        raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
    changed = {field: value for field in UPDATABLE if (value := getattr(asked, field))}
    if asked.PidsLimit is not None:
        changed["PidsLimit"] = asked.PidsLimit
    if policy.Name:
        changed["RestartPolicy"] = policy
    return msgspec.structs.replace(before, **changed)
