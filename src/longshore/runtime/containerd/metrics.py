"""A container's resource use, from what its shim reports of its cgroup. Imported when first asked for."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

from longshore.errors import System
from longshore.runtime.containerd.client import nanoseconds
from longshore.runtime.containerd.proto import containerd_pb2 as pb
from longshore.runtime.containerd.proto import metrics_pb2 as cgroup
from longshore.runtime.task import Metrics

# Those fields of MemoryStatV2 that are not lines of memory.stat but files of their own.
_NOT_STAT = ("usage", "usage_limit")


def decode_metrics(metric: pb.Metric) -> Metrics:
    """Decode by the cgroup version that the shim names. Raises System for one unknown."""
    read_at = nanoseconds(metric.timestamp)
    name = metric.data.type_url.rpartition("/")[2]
    if name.startswith("io.containerd.cgroups.v1"):
        return _v1(read_at, cgroup.V1.FromString(metric.data.value))
    if name.startswith("io.containerd.cgroups.v2"):
        return _v2(read_at, cgroup.V2.FromString(metric.data.value))
    raise System(f"containerd reports metrics of an unknown kind: {name}")


def _v1(read_at: int, data: cgroup.V1) -> Metrics:
    cpu, memory = data.cpu, data.memory
    return Metrics(
        read_at=read_at,
        cgroup=1,
        cpu_total=cpu.usage.total,
        cpu_user=cpu.usage.user,
        cpu_kernel=cpu.usage.kernel,
        per_cpu=tuple(cpu.usage.per_cpu),
        periods=cpu.throttling.periods,
        throttled_periods=cpu.throttling.throttled_periods,
        throttled_time=cpu.throttling.throttled_time,
        pids=data.pids.current,
        pids_limit=data.pids.limit,
        memory_usage=memory.usage.usage,
        memory_max_usage=memory.usage.max,
        memory_limit=memory.usage.limit,
        memory_failcnt=memory.usage.failcnt,
        memory=_numbers(memory, without=("usage",)),
        blkio={
            field.name: _entries(getattr(data.blkio, field.name))
            for field in cgroup.BlkIOStat.DESCRIPTOR.fields
        },
    )


def _v2(read_at: int, data: cgroup.V2) -> Metrics:
    cpu, memory = data.cpu, data.memory
    transferred: list[tuple[int, int, str, int]] = []
    operations: list[tuple[int, int, str, int]] = []
    for entry in data.io.usage:
        transferred += [(entry.major, entry.minor, "read", entry.rbytes)]
        transferred += [(entry.major, entry.minor, "write", entry.wbytes)]
        operations += [(entry.major, entry.minor, "read", entry.rios)]
        operations += [(entry.major, entry.minor, "write", entry.wios)]
    return Metrics(
        read_at=read_at,
        cgroup=2,
        cpu_total=cpu.usage_usec * 1000,
        cpu_user=cpu.user_usec * 1000,
        cpu_kernel=cpu.system_usec * 1000,
        periods=cpu.nr_periods,
        throttled_periods=cpu.nr_throttled,
        throttled_time=cpu.throttled_usec * 1000,
        pids=data.pids.current,
        pids_limit=data.pids.limit,
        memory_usage=memory.usage,
        memory_limit=memory.usage_limit,
        memory=_numbers(memory, without=_NOT_STAT),
        blkio={
            "io_service_bytes_recursive": tuple(transferred),
            "io_serviced_recursive": tuple(operations),
        },
    )


def _numbers(message: Message, without: tuple[str, ...]) -> dict[str, int]:
    names = (field.name for field in message.DESCRIPTOR.fields)
    return {name: getattr(message, name) for name in names if name not in without}


def _entries(entries: Iterable[cgroup.BlkIOEntry]) -> tuple[tuple[int, int, str, int], ...]:
    return tuple((each.major, each.minor, each.op, each.value) for each in entries)
