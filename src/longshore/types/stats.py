"""A container's resource use and changed limits, as the Engine API describes them."""

from __future__ import annotations

import msgspec

from longshore.types.codec import ApiStruct, names
from longshore.types.container import RestartPolicy
from longshore.types.resources import Resources
from longshore.types.timestamp import ZERO_TIME


class UpdateRequest(Resources):
    """Body of POST /containers/{id}/update; zero leaves a limit as it is."""

    RestartPolicy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)


class UpdateResponse(ApiStruct):
    """Answer to POST /containers/{id}/update."""

    Warnings: list[str] | None = None


class FilesystemChange(ApiStruct):
    """A path that differs from the image: 0 modified, 1 added, 2 deleted."""

    Path: str
    Kind: int


class CommitResponse(ApiStruct):
    """Answer to POST /commit."""

    Id: str


class PidsStats(ApiStruct):
    """Processes and threads."""

    _omitempty = names("current limit")
    current: int = 0
    limit: int = 0


class BlkioStatEntry(ApiStruct):
    """One counter of a block device."""

    major: int
    minor: int
    op: str
    value: int


class BlkioStats(ApiStruct):
    """Block devices; cgroup v2 has the first two lists only."""

    io_service_bytes_recursive: list[BlkioStatEntry] | None = None
    io_serviced_recursive: list[BlkioStatEntry] | None = None
    io_queue_recursive: list[BlkioStatEntry] | None = None
    io_service_time_recursive: list[BlkioStatEntry] | None = None
    io_wait_time_recursive: list[BlkioStatEntry] | None = None
    io_merged_recursive: list[BlkioStatEntry] | None = None
    io_time_recursive: list[BlkioStatEntry] | None = None
    sectors_recursive: list[BlkioStatEntry] | None = None


class CPUUsage(ApiStruct):
    """Nanoseconds of CPU time."""

    _omitempty = names("percpu_usage")
    total_usage: int = 0
    percpu_usage: list[int] | None = None
    usage_in_kernelmode: int = 0
    usage_in_usermode: int = 0


class ThrottlingData(ApiStruct):
    """How often a quota held the container up; `throttled_time` in nanoseconds."""

    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class CPUStats(ApiStruct):
    """CPU time of the container, and of the machine in nanoseconds."""

    _omitempty = names("system_cpu_usage online_cpus")
    cpu_usage: CPUUsage = msgspec.field(default_factory=CPUUsage)
    system_cpu_usage: int = 0
    online_cpus: int = 0
    throttling_data: ThrottlingData = msgspec.field(default_factory=ThrottlingData)


class MemoryStats(ApiStruct):
    """Bytes. `stats` are the lines of memory.stat."""

    _omitempty = names("usage max_usage stats failcnt limit")
    usage: int = 0
    max_usage: int = 0
    stats: dict[str, int] | None = None
    failcnt: int = 0
    limit: int = 0


class InterfaceStats(ApiStruct):
    """Counters of a network interface, as the container sees it."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


class StatsResponse(ApiStruct, kw_only=True):
    """One reading of GET /containers/{id}/stats; `precpu_stats` are the reading before."""

    _omitempty = names("networks")
    read: str = ZERO_TIME
    preread: str = ZERO_TIME
    pids_stats: PidsStats = msgspec.field(default_factory=PidsStats)
    blkio_stats: BlkioStats = msgspec.field(default_factory=BlkioStats)
    num_procs: int = 0
    storage_stats: dict[str, int] = msgspec.field(default_factory=dict)
    cpu_stats: CPUStats = msgspec.field(default_factory=CPUStats)
    precpu_stats: CPUStats = msgspec.field(default_factory=CPUStats)
    memory_stats: MemoryStats = msgspec.field(default_factory=MemoryStats)
    name: str
    id: str
    networks: dict[str, InterfaceStats] | None = None
