"""What bounds a container: cgroup limits, devices and rlimits, as the Engine API describes them."""

from __future__ import annotations

from longshore.types.codec import ApiStruct, names


class WeightDevice(ApiStruct):
    """A block device's weight, 10 to 1000."""

    Path: str = ""
    Weight: int = 0


class ThrottleDevice(ApiStruct):
    """A block device's limit, bytes or operations a second."""

    Path: str = ""
    Rate: int = 0


class DeviceMapping(ApiStruct):
    """A device of the host and where it appears in the container; permissions of `rwm`."""

    PathOnHost: str = ""
    PathInContainer: str = ""
    CgroupPermissions: str = ""


class DeviceRequest(ApiStruct):
    """Devices asked of a device driver, e.g. GPUs."""

    Driver: str = ""
    Count: int = 0
    DeviceIDs: list[str] | None = None
    Capabilities: list[list[str]] | None = None
    Options: dict[str, str] | None = None


class Ulimit(ApiStruct):
    """A resource limit; -1 is unlimited."""

    Name: str = ""
    Hard: int = 0
    Soft: int = 0


class Resources(ApiStruct):
    """What cgroups and rlimits bound. Memory in bytes, CPU periods and quotas in microseconds."""

    _omitempty = names("KernelMemory KernelMemoryTCP")
    CpuShares: int = 0
    Memory: int = 0
    NanoCpus: int = 0
    CgroupParent: str = ""
    BlkioWeight: int = 0
    BlkioWeightDevice: list[WeightDevice] | None = None
    BlkioDeviceReadBps: list[ThrottleDevice] | None = None
    BlkioDeviceWriteBps: list[ThrottleDevice] | None = None
    BlkioDeviceReadIOps: list[ThrottleDevice] | None = None
    BlkioDeviceWriteIOps: list[ThrottleDevice] | None = None
    CpuPeriod: int = 0
    CpuQuota: int = 0
    CpuRealtimePeriod: int = 0
    CpuRealtimeRuntime: int = 0
    CpusetCpus: str = ""
    CpusetMems: str = ""
    Devices: list[DeviceMapping] | None = None
    DeviceCgroupRules: list[str] | None = None
    DeviceRequests: list[DeviceRequest] | None = None
    KernelMemory: int = 0
    KernelMemoryTCP: int = 0
    MemoryReservation: int = 0
    MemorySwap: int = 0
    MemorySwappiness: int | None = None
    OomKillDisable: bool | None = None
    PidsLimit: int | None = None
    Ulimits: list[Ulimit] | None = None
    CpuCount: int = 0
    CpuPercent: int = 0
    IOMaximumIOps: int = 0
    IOMaximumBandwidth: int = 0
