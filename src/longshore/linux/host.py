"""What this machine, its kernel and this process's own rights allow: found once, at start.

Sources: /proc, /sys, os-release(5), cgroups(7), capabilities(7). Nothing here changes the machine.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from longshore.linux import apparmor, capabilities
from longshore.linux.mount import mountinfo

CgroupMode = Literal["v1", "v2", "hybrid"]


_X32_GETPID = 0x40000000 + 39


@dataclass(frozen=True)
class HostFacts:
    """One machine as the engine may use it. Sizes in bytes."""

    cgroup_mode: CgroupMode = "v2"
    """`hybrid` is v1 with a v2 tree beside it: limits are set in the v1 controllers."""
    cgroup_mounts: dict[str, str] = field(default_factory=dict)
    """Controller to mount point; the unified tree is under the empty name."""
    controllers: frozenset[str] = frozenset()
    own_cgroups: dict[str, str] = field(default_factory=dict)
    """This process's cgroup in each hierarchy, keyed as `cgroup_mounts`."""
    cgroup_driver: str = "cgroupfs"
    memory_limit: bool = False
    swap_limit: bool = False
    memory_reservation: bool = False
    oom_kill_disable: bool = False
    memory_swappiness: bool = False
    kernel_memory: bool = False
    kernel_memory_tcp: bool = False
    cpu_shares: bool = False
    cpu_cfs: bool = False
    cpu_realtime: bool = False
    cpuset: bool = False
    cpus_available: str = ""
    mems_available: str = ""
    blkio_weight: bool = False
    blkio_weight_device: bool = False
    blkio_read_bps: bool = False
    blkio_write_bps: bool = False
    blkio_read_iops: bool = False
    blkio_write_iops: bool = False
    pids_limit: bool = False
    hugetlb: bool = False
    devices: bool = False
    seccomp: bool = False
    x32: bool = True
    """Whether the kernel has the system calls of x32 programs; most do not."""
    apparmor: bool = False
    selinux: bool = False
    user_namespaces: bool = False
    cgroup_namespaces: bool = False
    effective_capabilities: frozenset[str] = frozenset()
    bounding_capabilities: frozenset[str] = frozenset()
    kernel_version: str = ""
    kernel: tuple[int, int] = (0, 0)
    architecture: str = ""
    operating_system: str = ""
    os_version: str = ""
    hostname: str = ""
    cpus: int = 1
    memory_total: int = 0
    ipv4_forwarding: bool = False
    ipv6: bool = False
    bridge_nf_iptables: bool = False
    bridge_nf_ip6tables: bool = False
    rlimits: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Name as in `--ulimit`, to this process's own soft and hard limit; -1 is unlimited."""
    oom_score_adj: int = 0
    """This process's own, which an unprivileged process cannot go below."""
    init_path: str = ""
    """docker-init or tini, at best one without libraries, which containers lack; empty if there is none."""

    @property
    def cgroup_version(self) -> str:
        """`1` or `2`, as `docker info` shows it."""
        return "2" if self.cgroup_mode == "v2" else "1"

    @property
    def unified(self) -> bool:
        """Whether limits go to the v2 tree alone."""
        return self.cgroup_mode == "v2"

    def has_capability(self, name: str) -> bool:
        """Whether this process holds the capability, e.g. `CAP_SYS_RESOURCE`."""
        return name in self.effective_capabilities


def discover(cgroup_driver: str = "") -> HostFacts:
    """Look at the machine. `cgroup_driver`, if given, stands for the default: systemd on v2 under it."""
    mode, mounts = _cgroup_mounts()
    own = _own_cgroups(mode)
    systemd = Path("/run/systemd/system").is_dir()
    release = _os_release()
    status = capabilities.of_process()
    features = _unified_features(mounts, own) if mode == "v2" else _v1_features(mounts)
    return HostFacts(
        cgroup_mode=mode,
        cgroup_mounts=mounts,
        own_cgroups=own,
        cgroup_driver=cgroup_driver or ("systemd" if mode == "v2" and systemd else "cgroupfs"),
        seccomp=Path("/proc/sys/kernel/seccomp/actions_avail").exists(),
        x32=_has_x32(),
        apparmor=apparmor.enabled(),
        selinux=Path("/sys/fs/selinux/enforce").exists(),
        user_namespaces=Path("/proc/self/ns/user").exists()
        and _text("/proc/sys/user/max_user_namespaces") != "0",
        cgroup_namespaces=Path("/proc/self/ns/cgroup").exists(),
        effective_capabilities=status["effective"],
        bounding_capabilities=status["bounding"],
        kernel_version=platform.release(),
        kernel=kernel_number(platform.release()),
        architecture=platform.machine(),
        operating_system=release.get("PRETTY_NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        hostname=os.uname().nodename,
        cpus=len(os.sched_getaffinity(0)),
        memory_total=_memory_total(),
        ipv4_forwarding=_text("/proc/sys/net/ipv4/ip_forward") == "1",
        ipv6=Path("/proc/net/if_inet6").exists() and _text("/proc/sys/net/ipv6/conf/all/disable_ipv6") == "0",
        bridge_nf_iptables=_text("/proc/sys/net/bridge/bridge-nf-call-iptables") == "1",
        bridge_nf_ip6tables=_text("/proc/sys/net/bridge/bridge-nf-call-ip6tables") == "1",
        rlimits=_rlimits(),
        oom_score_adj=int(_text("/proc/self/oom_score_adj") or 0),
        init_path=next(filter(None, map(shutil.which, ("docker-init", "tini-static", "tini"))), ""),
        **features,  # type: ignore[arg-type]
    )


def _has_x32() -> bool:
    """Ask for getpid(2) as x32 programs do: in a child, which a filter on this process may kill for it."""
    if platform.machine() != "x86_64":
        return False
    asked = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(ctypes.c_long({_X32_GETPID})) < 0)"
    child = subprocess.run([sys.executable, "-IS", "-c", asked], capture_output=True, check=False)
    return child.returncode == 0


def _cgroup_mounts() -> tuple[CgroupMode, dict[str, str]]:
    mounts: dict[str, str] = {}
    for point in mountinfo():
        if point.fstype == "cgroup2":
            mounts.setdefault("", point.target)
        elif point.fstype == "cgroup":
            for option in point.super_options.split(","):
                if option not in ("rw", "ro", "xattr", "clone_children", "noprefix"):
                    mounts.setdefault(option, point.target)
    if set(mounts) <= {""}:
        return "v2", mounts
    return ("hybrid" if "" in mounts else "v1"), mounts


def _own_cgroups(mode: CgroupMode) -> dict[str, str]:
    own: dict[str, str] = {}
    for line in _text("/proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            if name or mode != "v1":
                own[name] = path
    return own


def _v1_features(mounts: dict[str, str]) -> dict[str, object]:
    def has(controller: str, *files: str) -> bool:
        return controller in mounts and all(Path(mounts[controller], name).exists() for name in files)

    blkio = Path(mounts["blkio"]) if "blkio" in mounts else None
    # The files of an I/O scheduler exist in child cgroups alone, but for bfq's, which carry its name.
    weight = blkio is not None and any(
        (blkio / name).exists() for name in ("blkio.weight", "blkio.bfq.weight")
    )
    cpuset = Path(mounts.get("cpuset", "/nonexistent"))
    return {
        "controllers": frozenset(name for name in mounts if name and "=" not in name),
        "memory_limit": has("memory", "memory.limit_in_bytes"),
        "swap_limit": has("memory", "memory.memsw.limit_in_bytes"),
        "memory_reservation": has("memory", "memory.soft_limit_in_bytes"),
        "oom_kill_disable": has("memory", "memory.oom_control"),
        "memory_swappiness": has("memory", "memory.swappiness"),
        "kernel_memory": has("memory", "memory.kmem.limit_in_bytes"),
        "kernel_memory_tcp": has("memory", "memory.kmem.tcp.limit_in_bytes"),
        "cpu_shares": has("cpu", "cpu.shares"),
        "cpu_cfs": has("cpu", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
        "cpu_realtime": has("cpu", "cpu.rt_runtime_us", "cpu.rt_period_us"),
        "cpuset": "cpuset" in mounts,
        "cpus_available": _text(cpuset / "cpuset.cpus"),
        "mems_available": _text(cpuset / "cpuset.mems"),
        "blkio_weight": weight,
        "blkio_weight_device": has("blkio", "blkio.weight_device") or has("blkio", "blkio.bfq.weight_device"),
        "blkio_read_bps": has("blkio", "blkio.throttle.read_bps_device"),
        "blkio_write_bps": has("blkio", "blkio.throttle.write_bps_device"),
        "blkio_read_iops": has("blkio", "blkio.throttle.read_iops_device"),
        "blkio_write_iops": has("blkio", "blkio.throttle.write_iops_device"),
        "pids_limit": "pids" in mounts,
        "hugetlb": "hugetlb" in mounts,
        "devices": "devices" in mounts,
    }


def _unified_features(mounts: dict[str, str], own: dict[str, str]) -> dict[str, object]:
    root = Path(mounts.get("", "/sys/fs/cgroup"))
    mine = root / own.get("", "/").lstrip("/")
    controllers = frozenset(
        (_text(mine / "cgroup.controllers") or _text(root / "cgroup.controllers")).split()
    )
    memory, cpu, io = ("memory" in controllers), ("cpu" in controllers), ("io" in controllers)
    return {
        "controllers": controllers,
        "memory_limit": memory,
        "swap_limit": memory and (mine == root or (mine / "memory.swap.max").exists()),
        "memory_reservation": memory,
        "cpu_shares": cpu,
        "cpu_cfs": cpu,
        "cpuset": "cpuset" in controllers,
        "cpus_available": _text(root / "cpuset.cpus.effective"),
        "mems_available": _text(root / "cpuset.mems.effective"),
        "blkio_weight": io,
        "blkio_weight_device": io,
        "blkio_read_bps": io,
        "blkio_write_bps": io,
        "blkio_read_iops": io,
        "blkio_write_iops": io,
        "pids_limit": "pids" in controllers,
        "hugetlb": "hugetlb" in controllers,
        "devices": True,  # by BPF programs, not by a controller
    }


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def kernel_number(release: str) -> tuple[int, int]:
    """Major and minor number of a kernel's release, such as `6.1.0-44-amd64`."""
    major, _, rest = release.partition(".")
    minor = rest.split(".")[0].split("-")[0]
    return int(major), int(minor) if minor.isdigit() else 0


def _memory_total() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")


def _rlimits() -> dict[str, tuple[int, int]]:
    return {
        name: resource.getrlimit(number)
        for name, number in (
            (attribute.removeprefix("RLIMIT_").lower(), getattr(resource, attribute))
            for attribute in dir(resource)
            if attribute.startswith("RLIMIT_") and attribute != "RLIMIT_OFILE"
        )
    }


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
