"""A container's resource use, from what its shim reports of its cgroup. Imported when first asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from google.protobuf.message import Message

from longshore.errors import NotFound, System
from longshore.runtime.containerd.client import Client, nanoseconds
from longshore.runtime.containerd.proto import containerd_pb2 as pb
from longshore.runtime.containerd.proto import metrics_pb2 as cgroup
from longshore.runtime.task import Metrics

# Those fields of MemoryStatV2 that are not lines of memory.stat but files of their own.
_NOT_STAT = ("usage", "usage_limit")
_GATHERING = 0.002
"""Seconds within which questions become one."""


class MetricsReader:
    """Asks containerd for metrics, once for all containers that are asked for at about the same moment.

    A call costs more than the numbers in it, and those who watch a crowd want all of it each second.
    """

    def __init__(self, client: Callable[[], Awaitable[Client]]) -> None:
        self._client = client
        self._wanted: dict[str, asyncio.Future[Metrics]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def read(self, id: str) -> Metrics:
        """What the container uses. Raises NotFound if it does not run, System, Unavailable."""
        loop = asyncio.get_running_loop()
        if not self._wanted:
            loop.call_later(_GATHERING, self._ask)
        found = self._wanted.setdefault(id, loop.create_future())
        return await asyncio.shield(found)

    def _ask(self) -> None:
        wanted, self._wanted = self._wanted, {}
        asking = asyncio.create_task(self._answer(wanted), name="containerd-metrics")
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    async def _answer(self, wanted: dict[str, asyncio.Future[Metrics]]) -> None:
        failure: Exception | None = None
        found: dict[str, Metrics] = {}
        try:
            request = pb.MetricsRequest(filters=[f"id=={id}" for id in wanted])
            reply = await (await self._client()).metrics(request)
            found = {each.id: decode_metrics(each) for each in reply.metrics}
        except Exception as exc:
            failure = exc
        for id, future in wanted.items():
            if id in found:
                future.set_result(found[id])
            else:
                future.set_exception(failure or NotFound(f"no metrics of container {id}: not found"))
                future.exception()  # Whoever asked may have left.


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
