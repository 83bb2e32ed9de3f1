"""Checks of limits, at creation and update: moby's verifyPlatformContainerResources, message for message."""

from __future__ import annotations

from longshore.errors import InvalidParameter
from longshore.linux.host import HostFacts
from longshore.types.resources import Resources

_MINIMUM_MEMORY = 6 << 20  # what runc's own start needs

# Setting, fact about the host, what the kernel would have to support, what becomes of it.
_BLKIO = (
    ("BlkioWeightDevice", "blkio_weight_device", "Block I/O weight_device", "Weight-device"),
    ("BlkioDeviceReadBps", "blkio_read_bps", "BPS Block I/O read limit", "Block I/O BPS read limit"),
    ("BlkioDeviceWriteBps", "blkio_write_bps", "BPS Block I/O write limit", "Block I/O BPS write limit"),
    ("BlkioDeviceReadIOps", "blkio_read_iops", "IOPS Block read limit", "Block I/O IOPS read limit"),
    ("BlkioDeviceWriteIOps", "blkio_write_iops", "IOPS Block write limit", "Block I/O IOPS write limit"),
)


def verify_resources(limits: Resources, host: HostFacts, *, update: bool = False) -> list[str]:
    """Raise InvalidParameter for values that cannot be; take out, in place, what this kernel cannot do.

    Returns a warning for each limit taken out.
    """
    warnings: list[str] = []
    _verify_memory(limits, host, warnings, update=update)
    if limits.PidsLimit is not None and not host.pids_limit:
        if limits.PidsLimit > 0:
            warnings.append(_unsupported("PIDs limit capabilities", "PIDs limit discarded."))
        limits.PidsLimit = None
    _verify_cpu(limits, host, warnings)
    _verify_cpuset(limits, host, warnings)
    _verify_block_io(limits, host, warnings)
    return warnings


def parse_cpu_list(text: str) -> set[int]:
    """`0-2,7` as numbers; see cpuset(7). Raises ValueError."""
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if low < 0 or high < low or high > 8191:
            raise ValueError(text)
        numbers.update(range(low, high + 1))
    return numbers


def _verify_memory(limits: Resources, host: HostFacts, warnings: list[str], *, update: bool) -> None:
    if limits.Memory != 0 and limits.Memory < _MINIMUM_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if limits.Memory > 0 and not host.memory_limit:
        warnings.append(_unsupported("memory limit capabilities", "Limitation discarded."))
        limits.Memory, limits.MemorySwap = 0, -1
    if limits.Memory > 0 and limits.MemorySwap != -1 and not host.swap_limit:
        warnings.append(_unsupported("swap limit capabilities", "Memory limited without swap."))
        limits.MemorySwap = -1
    if limits.Memory > 0 and 0 < limits.MemorySwap < limits.Memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if limits.Memory == 0 and limits.MemorySwap > 0 and not update:
        raise InvalidParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    swappiness = limits.MemorySwappiness
    if swappiness is not None and swappiness != -1 and not host.memory_swappiness:
        warnings.append(_unsupported("memory swappiness capabilities", "Memory swappiness discarded."))
        limits.MemorySwappiness = None
    elif swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidParameter(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if limits.MemoryReservation > 0 and not host.memory_reservation:
        warnings.append(_unsupported("memory soft limit capabilities", "Limitation discarded."))
        limits.MemoryReservation = 0
    if 0 < limits.MemoryReservation < _MINIMUM_MEMORY:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if 0 < limits.Memory < limits.MemoryReservation:
        raise InvalidParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if limits.KernelMemory > 0:
        warnings.append(
            "Specifying a kernel memory limit is deprecated and will be removed in a future release."
        )
        if not host.kernel_memory:
            warnings.append(_unsupported("kernel memory limit capabilities", "Limitation discarded."))
            limits.KernelMemory = 0
        elif limits.KernelMemory < _MINIMUM_MEMORY:
            raise InvalidParameter("Minimum kernel memory limit allowed is 6MB")
    if limits.OomKillDisable is not None and not host.oom_kill_disable:
        if limits.OomKillDisable:
            warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        limits.OomKillDisable = None
    if limits.OomKillDisable and limits.Memory == 0:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the "
            "system running out of resources."
        )


def _verify_cpu(limits: Resources, host: HostFacts, warnings: list[str]) -> None:
    if limits.NanoCpus > 0:
        for name, value in (("Period", limits.CpuPeriod), ("Quota", limits.CpuQuota)):
            if value > 0:
                raise InvalidParameter(f"Conflicting options: Nano CPUs and CPU {name} cannot both be set")
        if not host.cpu_cfs:
            raise InvalidParameter(
                "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is "
                "not mounted"
            )
    if not 0 <= limits.NanoCpus <= host.cpus * 1_000_000_000:
        raise InvalidParameter(
            f"Range of CPUs is from 0.01 to {host.cpus}.00, as there are only {host.cpus} CPUs available"
        )
    if limits.CpuShares > 0 and not host.cpu_shares:
        warnings.append(_unsupported("CPU shares", "Shares discarded."))
        limits.CpuShares = 0
    if (limits.CpuPeriod or limits.CpuQuota) and not host.cpu_cfs:
        warnings.append(_unsupported("CPU CFS scheduler", "CPU period/quota discarded."))
        limits.CpuPeriod = limits.CpuQuota = 0
    if limits.CpuPeriod and not 1000 <= limits.CpuPeriod <= 1_000_000:
        raise InvalidParameter(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < limits.CpuQuota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if (limits.CpuRealtimePeriod or limits.CpuRealtimeRuntime) and not host.cpu_realtime:
        raise InvalidParameter("Your kernel does not support CPU real-time scheduler")
    if limits.CpuRealtimePeriod and limits.CpuRealtimeRuntime > limits.CpuRealtimePeriod:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")
    if limits.CpuPercent > 0:
        warnings.append("linux does not support CPU percent. Percent discarded.")
        limits.CpuPercent = 0


def _verify_cpuset(limits: Resources, host: HostFacts, warnings: list[str]) -> None:
    if (limits.CpusetCpus or limits.CpusetMems) and not host.cpuset:
        warnings.append(_unsupported("cpuset", "Cpuset discarded."))
        limits.CpusetCpus = limits.CpusetMems = ""
    for asked, available, setting, what in (
        (limits.CpusetCpus, host.cpus_available, "cpus", "CPUs"),
        (limits.CpusetMems, host.mems_available, "mems", "memory nodes"),
    ):
        try:
            wanted = parse_cpu_list(asked)
        except ValueError:
            raise InvalidParameter(
                f"Invalid value {asked} for cpuset {setting}: invalid format: {asked}"
            ) from None
        if not wanted <= parse_cpu_list(available):
            raise InvalidParameter(
                f"Requested {what} are not available - requested {asked}, available: {available}"
            )


def _verify_block_io(limits: Resources, host: HostFacts, warnings: list[str]) -> None:
    if limits.BlkioWeight > 0 and not host.blkio_weight:
        warnings.append(_unsupported("Block I/O weight", "Weight discarded."))
        limits.BlkioWeight = 0
    if limits.BlkioWeight and not 10 <= limits.BlkioWeight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    for setting, what in (("IOMaximumBandwidth", "bandwidth"), ("IOMaximumIOps", "IOPs")):
        if getattr(limits, setting):
            raise InvalidParameter(
                f"invalid QoS settings: linux does not support configuration of maximum {what}"
            )
    for setting, fact, what, limit in _BLKIO:
        if getattr(limits, setting) and not getattr(host, fact):
            warnings.append(_unsupported(what, f"{limit} discarded."))
            setattr(limits, setting, [])


def _unsupported(what: str, consequence: str) -> str:
    return f"Your kernel does not support {what} or the cgroup is not mounted. {consequence}"
