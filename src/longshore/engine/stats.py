"""What a container uses: CPU, memory, block devices, network."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.containers.container import Container
from longshore.errors import EngineError, InvalidParameter
from longshore.types.stats import (
    BlkioStatEntry,
    BlkioStats,
    CPUStats,
    CPUUsage,
    InterfaceStats,
    MemoryStats,
    PidsStats,
    StatsResponse,
    ThrottlingData,
)
from longshore.types.timestamp import now, rfc3339_nano

if TYPE_CHECKING:
    from longshore.engine.engine import Engine
    from longshore.linux.host import HostFacts
    from longshore.runtime.task import Metrics

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two readings."""

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_machine = (-_TICK, 0)


def container_stats(
    engine: Engine, name: str, *, stream: bool, one_shot: bool
) -> AsyncIterator[StatsResponse]:
    """GET /containers/{id}/stats: readings for ever, or one.

    A single reading takes two, an interval apart, so that the CPU's use can be told from it; `one_shot`
    leaves that to the client. Raises NotFound, InvalidParameter.
    """
    if stream and one_shot:
        raise InvalidParameter("cannot have stream=true and one-shot=true")
    return _readings(engine, engine.containers.get(name), stream=stream, one_shot=one_shot)


async def _readings(
    engine: Engine, container: Container, *, stream: bool, one_shot: bool
) -> AsyncIterator[StatsResponse]:
    if one_shot or (not stream and not container.state.Running):
        yield await read_stats(engine, container)
        return
    before = await read_stats(engine, container)
    if stream:
        yield before
    while not container.removed:
        await asyncio.sleep(until_next() if stream else INTERVAL)
        reading = await read_stats(engine, container)
        reading.precpu_stats, reading.preread = before.cpu_stats, before.read
        yield reading
        if not stream:
            return
        before = reading


def until_next() -> float:
    """Seconds until all who watch read again: at one moment, which costs least, but not at once."""
    left = INTERVAL - time.monotonic() % INTERVAL
    return left if left > INTERVAL / 2 else left + INTERVAL


async def read_stats(engine: Engine, container: Container) -> StatsResponse:
    """What the container uses now; all zero while it does not run or its cgroup cannot be read."""
    empty = StatsResponse(name=container.record.Name, id=container.id)
    pid = container.state.Pid
    if not container.state.Running or not pid:
        return empty
    try:
        metrics = await engine.runtime.metrics(container.id)
    except EngineError as exc:
        if container.state.Running and container.state.Pid == pid:  # Otherwise it ended meanwhile.
            log.error("collecting stats for %s: %s", container.id, exc)
        return empty
    response = describe(metrics, engine.host)
    response.name, response.id = empty.name, empty.id
    if container.host_config.NetworkMode != "host":
        response.networks = interface_stats(Path(f"/proc/{pid}/net/dev"))
    return response


def describe(metrics: Metrics, host: HostFacts) -> StatsResponse:
    """The runtime's numbers in the API's shape, which follows cgroup v1; v2 has fewer of them."""
    first = metrics.cgroup == 1
    limit = metrics.memory_limit
    if host.memory_total:
        limit = min(limit, host.memory_total) if limit else host.memory_total
    return StatsResponse(
        name="",
        id="",
        read=rfc3339_nano(metrics.read_at) if metrics.read_at else now(),
        pids_stats=PidsStats(metrics.pids, metrics.pids_limit),
        blkio_stats=_blkio(metrics, all_lists=first),
        cpu_stats=CPUStats(
            CPUUsage(metrics.cpu_total, list(metrics.per_cpu), metrics.cpu_kernel, metrics.cpu_user),
            system_cpu_usage(),
            os.cpu_count() or host.cpus,
            ThrottlingData(metrics.periods, metrics.throttled_periods, metrics.throttled_time),
        ),
        memory_stats=MemoryStats(
            metrics.memory_usage, metrics.memory_max_usage, _memory(metrics), metrics.memory_failcnt, limit
        ),
    )


def _memory(metrics: Metrics) -> dict[str, int]:
    """Only the lines of memory.stat; the runtime adds objects of its own, which are no numbers."""
    return {name: value for name, value in sorted(metrics.memory.items()) if isinstance(value, int)}


def _blkio(metrics: Metrics, *, all_lists: bool) -> BlkioStats:
    stats = BlkioStats()
    for name in BlkioStats.__struct_fields__:
        entries = metrics.blkio.get(name)
        if entries or all_lists:
            setattr(stats, name, [BlkioStatEntry(*entry) for entry in entries or ()])
    return stats


def system_cpu_usage() -> int:
    """Nanoseconds of CPU time that the machine has spent, idle time included (proc(5), /proc/stat).

    The kernel counts in ticks: who asks again within one gets the same answer.
    """
    global _machine  # noqa: PLW0603
    now_ns = time.monotonic_ns()
    if now_ns - _machine[0] >= _TICK:
        line = Path("/proc/stat").read_text().partition("\n")[0]
        _machine = (now_ns, sum(int(field) for field in line.split()[1:8]) * _TICK)
    return _machine[1]


def interface_stats(path: Path) -> dict[str, InterfaceStats] | None:
    """Counters of each interface but loopback, from a `net/dev` of proc(5); None if there are none."""
    try:
        lines = path.read_text().splitlines()[2:]
    except OSError:
        return None
    found = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        fields = [int(field) for field in numbers.split()]
        if name.strip() != "lo":
            found[name.strip()] = InterfaceStats(*fields[0:4], *fields[8:12])
    return found or None
