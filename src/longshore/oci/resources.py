"""What the container's cgroup bounds, and where that cgroup is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from longshore.errors import InvalidParameter, System
from longshore.linux.host import HostFacts
from longshore.oci.input import SpecInput
from longshore.types.resources import Resources, ThrottleDevice

_CFS_PERIOD = 100_000
"""Microseconds; the kernel's default."""


def resources(limits: Resources, host: HostFacts) -> dict[str, Any]:
    """The `linux.resources` object without its devices; also what an update of a running container sends.

    Raises System if a block device that is named does not exist.
    """
    result: dict[str, Any] = {
        "memory": _memory(limits),
        "cpu": cpu(limits),
        "blockIO": _block_io(limits, host),
    }
    if limits.PidsLimit is not None:
        # Docker's 0 and negative numbers are "no limit", which is -1 in OCI's terms.
        result["pids"] = {"limit": limits.PidsLimit if limits.PidsLimit > 0 else -1}
    return {name: value for name, value in result.items() if value}


def cgroups_path(container: SpecInput, host: HostFacts) -> str:
    """`/docker/<id>`, or `system.slice:docker:<id>` for systemd; below `--cgroup-parent` if given."""
    systemd = (container.cgroup_driver or host.cgroup_driver) == "systemd"
    parent = container.host_config.CgroupParent or container.default_cgroup_parent
    if systemd:
        return f"{parent or 'system.slice'}:docker:{container.id}"
    parent = parent or "/docker"
    if ".." in Path(parent).parts:
        raise InvalidParameter(f'invalid cgroup-parent "{parent}": must not contain ".."')
    return str(Path(parent) / container.id)


def cpu(limits: Resources) -> dict[str, Any]:
    """The `cpu` object; NanoCpus becomes a quota on the default period."""
    result: dict[str, Any] = {}
    if limits.CpuShares < 0:
        raise InvalidParameter("shares: invalid argument")
    if limits.CpuShares > 0:
        result["shares"] = limits.CpuShares
    if limits.CpusetCpus:
        result["cpus"] = limits.CpusetCpus
    if limits.CpusetMems:
        result["mems"] = limits.CpusetMems
    if limits.NanoCpus > 0:
        result["period"] = _CFS_PERIOD
        result["quota"] = limits.NanoCpus * _CFS_PERIOD // 1_000_000_000
    if limits.CpuPeriod:
        result["period"] = limits.CpuPeriod
    if limits.CpuQuota:
        result["quota"] = limits.CpuQuota
    if limits.CpuRealtimePeriod:
        result["realtimePeriod"] = limits.CpuRealtimePeriod
    if limits.CpuRealtimeRuntime:
        result["realtimeRuntime"] = limits.CpuRealtimeRuntime
    return result


def _memory(limits: Resources) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if limits.Memory > 0:
        result["limit"] = limits.Memory
    if limits.MemoryReservation > 0:
        result["reservation"] = limits.MemoryReservation
    if limits.MemorySwap > 0 or (limits.MemorySwap == -1 and limits.Memory > 0):
        result["swap"] = limits.MemorySwap
    if limits.MemorySwappiness is not None and limits.MemorySwappiness >= 0:
        result["swappiness"] = limits.MemorySwappiness
    if limits.OomKillDisable is not None:
        result["disableOOMKiller"] = limits.OomKillDisable
    if limits.KernelMemory > 0:
        result["kernel"] = limits.KernelMemory
    if limits.KernelMemoryTCP > 0:
        result["kernelTCP"] = limits.KernelMemoryTCP
    return result


def _block_io(limits: Resources, host: HostFacts) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if limits.BlkioWeight and (host.blkio_weight or not host.controllers):
        result["weight"] = limits.BlkioWeight
    if limits.BlkioWeightDevice:
        result["weightDevice"] = [
            {**_device_number(device.Path), "weight": device.Weight} for device in limits.BlkioWeightDevice
        ]
    for name, devices in (
        ("throttleReadBpsDevice", limits.BlkioDeviceReadBps),
        ("throttleWriteBpsDevice", limits.BlkioDeviceWriteBps),
        ("throttleReadIOPSDevice", limits.BlkioDeviceReadIOps),
        ("throttleWriteIOPSDevice", limits.BlkioDeviceWriteIOps),
    ):
        if devices:
            result[name] = _throttles(devices)
    return result


def _throttles(devices: Iterable[ThrottleDevice]) -> list[dict[str, int]]:
    return [{**_device_number(device.Path), "rate": device.Rate} for device in devices]


def _device_number(path: str) -> dict[str, int]:
    try:
        number = Path(path).stat().st_rdev
    except OSError as exc:
        raise System(f"stat {path}: {(exc.strerror or '').lower()}") from exc
    return {"major": os.major(number), "minor": os.minor(number)}
