"""The checks of `longshore doctor`: each looks at one thing and says what it found."""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from longshore.linux import apparmor
from longshore.linux.host import HostFacts

Level = Literal["ok", "limit", "problem"]


@dataclass(frozen=True)
class Machine:
    """What the checks look at."""

    facts: HostFacts
    data_root: Path


@dataclass(frozen=True)
class Finding:
    """What one check found; `mend` says what to do unless all is well."""

    name: str
    level: Level
    found: str
    mend: str = ""


Check = Callable[[Machine], Iterable[Finding]]


def _one(name: str, well: bool, found: str, lacking: str, mend: str, level: Level = "limit") -> Finding:
    return Finding(name, "ok", found) if well else Finding(name, level, lacking, mend)


def python(_: Machine) -> Iterator[Finding]:
    """The interpreter that runs the engine."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield _one("python", sys.version_info >= (3, 11), version, version, "install Python 3.11", "problem")


def kernel(machine: Machine) -> Iterator[Finding]:
    """5.10 is what Debian 11 has and the oldest kernel that the engine is made for."""
    release = machine.facts.kernel_version
    yield _one(
        "kernel",
        machine.facts.kernel >= (5, 10),
        release,
        f"{release} is old",
        "use 5.10 or newer",
        "problem",
    )


def privileges(machine: Machine) -> Iterator[Finding]:
    """Root, and the capabilities that containers' set-up needs."""
    yield _one("root", os.geteuid() == 0, "yes", "no", "run as root: other findings may be wrong", "problem")
    needed = {
        "CAP_SYS_ADMIN": "mount and make namespaces",
        "CAP_NET_ADMIN": "build networks",
        "CAP_SETUID": "change users",
        "CAP_SETGID": "change groups",
        "CAP_CHOWN": "unpack images",
        "CAP_DAC_OVERRIDE": "unpack images",
        "CAP_MKNOD": "make devices",
    }
    lacking = {name: use for name, use in needed.items() if not machine.facts.has_capability(name)}
    uses = ", ".join(f"{name} (to {use})" for name, use in lacking.items())
    yield _one("capabilities", not lacking, "all that are needed", f"no {uses}", "grant them", "problem")
    yield _one(
        "CAP_SYS_RESOURCE",
        machine.facts.has_capability("CAP_SYS_RESOURCE"),
        "yes",
        "no: containers cannot get higher limits (ulimits, a low OOM score) than this process has",
        "grant CAP_SYS_RESOURCE to the daemon if you need them",
    )


def namespaces(machine: Machine) -> Iterator[Finding]:
    """The kernel's namespaces (namespaces(7))."""
    lacking = [
        kind for kind in ("mnt", "pid", "net", "ipc", "uts") if not Path(f"/proc/self/ns/{kind}").exists()
    ]
    yield _one(
        "namespaces",
        not lacking,
        "mnt, pid, net, ipc, uts",
        f"the kernel has no {', '.join(lacking)}",
        "use a kernel that was built with them",
        "problem",
    )
    yield _one(
        "user namespaces",
        machine.facts.user_namespaces,
        "yes",
        "no: --userns-remap cannot work",
        "sysctl user.max_user_namespaces=65536",
    )
    yield _one(
        "cgroup namespaces",
        machine.facts.cgroup_namespaces,
        "yes",
        "no: containers see the host's cgroups",
        "use kernel 4.6 or newer",
    )


def cgroups(machine: Machine) -> Iterator[Finding]:
    """The cgroup version, and each controller that Docker's options use."""
    facts = machine.facts
    mounted = bool(facts.cgroup_mounts)
    yield _one(
        "cgroups", mounted, facts.cgroup_mode, "none is mounted", "mount cgroup2 on /sys/fs/cgroup", "problem"
    )
    controllers: list[tuple[str, bool, str]] = [
        ("memory", facts.memory_limit, "--memory"),
        ("swap accounting", facts.swap_limit, "--memory-swap"),
        ("cpu shares", facts.cpu_shares, "--cpu-shares"),
        ("cpu quota", facts.cpu_cfs, "--cpus"),
        ("cpuset", facts.cpuset, "--cpuset-cpus"),
        ("pids", facts.pids_limit, "--pids-limit"),
        ("block io weight", facts.blkio_weight, "--blkio-weight"),
        ("block io limits", facts.blkio_read_bps, "--device-read-bps"),
        ("devices", facts.devices, "--device"),
    ]
    for name, present, option in controllers:
        yield _one(
            f"cgroup {name}",
            present,
            "yes",
            f"no: {option} has no effect",
            "enable the controller in the kernel or on its command line",
            "problem" if name == "devices" else "limit",
        )


def storage(machine: Machine) -> Iterator[Finding]:
    """overlayfs and the file system below the data root."""
    known = re.search(r"\boverlay$", _text("/proc/filesystems"), re.MULTILINE) is not None
    yield _one(
        "overlayfs",
        known or _module("overlay"),
        "yes",
        "no: images fall back to copies (vfs)",
        "modprobe overlay",
    )
    yield _one(
        "new mount API",
        machine.facts.kernel >= (6, 5),
        "layers are appended one by one",
        f"kernel {machine.facts.kernel_version} mounts layers in one option string",
        "use kernel 6.5 or newer for images with very many layers",
    )
    for feature in ("metacopy", "redirect_dir"):
        value = _text(f"/sys/module/overlay/parameters/{feature}")
        yield _one(
            f"overlay {feature}",
            value in ("N", "off", ""),
            "off",
            f"{value}: on by default in this kernel",
            "nothing: the engine turns it off for its own mounts",
        )
    yield from _data_root(machine.data_root)


def _data_root(path: Path) -> Iterator[Finding]:
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    usage = shutil.disk_usage(existing)
    kind = _file_system(existing)
    unfit = kind in ("nfs", "nfs4", "cifs", "fuse", "ecryptfs", "overlay", "vfat")
    yield _one(
        "data root",
        not unfit,
        f"{path} on {kind}",
        f"{path} on {kind}, which overlayfs cannot write to",
        "put --data-root on ext4, xfs or btrfs",
        "problem",
    )
    free = f"{usage.free / 2**30:.1f} GB free"
    yield _one("disk space", usage.free > 2**30, free, free, f"make room on {existing}")


def network(machine: Machine) -> Iterator[Finding]:
    """What a bridge network is built of."""
    yield _one(
        "libnftables",
        ctypes.util.find_library("nftables") is not None,
        "yes",
        "the library is missing: no port can be published, no network reach out",
        "apt-get install libnftables1",
        "problem",
    )
    built_in = _text(f"/lib/modules/{machine.facts.kernel_version}/modules.builtin")
    for module, use in (("veth", "connect a container"), ("bridge", "connect containers"), ("nf_tables", "")):
        present = _module(module) or f"/{module}.ko" in built_in or _shown_in_use(module)
        yield _one(
            f"{module} module",
            present,
            "yes",
            f"it was not found: nothing may {use or 'publish ports'}",
            f"modprobe {module}",
        )
    yield _one(
        "IPv4 forwarding",
        machine.facts.ipv4_forwarding,
        "on",
        "off; the daemon turns it on for its networks unless started with --ip-forward=false",
        "nothing, or sysctl net.ipv4.ip_forward=1",
    )
    yield _one("IPv6", machine.facts.ipv6, "yes", "no: only IPv4 networks", "enable it in the kernel")
    yield firewall(machine)


def firewall(_: Machine) -> Finding:
    """Somebody else's FORWARD policy that drops, or firewalld: our `accept` cannot undo their `drop`."""
    from longshore.network import firewalld
    from longshore.network.foreign import dropping

    found = [f"the FORWARD policy of {program} is DROP" for program in dropping()]
    if firewalld.running():
        found.append("firewalld refuses what no zone of it lets through")
    return _one(
        "other firewalls",
        not found,
        "none drops forwarded packets",
        "; ".join(found),
        "nothing: the daemon lets its own bridges through there and takes that back when it ends",
    )


def programs(machine: Machine) -> Iterator[Finding]:
    """The programs below the engine."""
    table: list[tuple[str, list[str], Level, str]] = [
        ("containerd", ["--version"], "problem", "containers cannot run"),
        ("runc", ["--version"], "problem", "containers cannot run"),
        ("crun", ["--version"], "limit", "the faster runtime cannot be chosen"),
        ("criu", ["--version"], "limit", "no checkpoints"),
        (
            "nft",
            ["--version"],
            "limit",
            "you cannot look at the firewall; the engine itself does not need it",
        ),
    ]
    for name, arguments, level, meaning in table:
        path = shutil.which(name)
        found = _version(path, arguments) if path else ""
        yield _one(
            name, path is not None, found, f"it is missing: {meaning}", f"apt-get install {name}", level
        )
    init = machine.facts.init_path
    yield _one("init", bool(init), init, "none: `docker run --init` cannot work", "apt-get install tini")


def security(machine: Machine) -> Iterator[Finding]:
    """What confines a container besides namespaces."""
    facts = machine.facts
    yield _one("seccomp", facts.seccomp, "yes", "no: system calls are not filtered", "use a kernel with it")
    confined = "AppArmor" if facts.apparmor else "SELinux" if facts.selinux else ""
    yield _one(
        "AppArmor, SELinux",
        bool(confined),
        confined,
        "neither is active: containers run without either, as `docker info` shows",
        "apt-get install apparmor" if apparmor.in_kernel() else "nothing, or enable one in the kernel",
    )


def socket(_: Machine) -> Iterator[Finding]:
    """Who may talk to a daemon on the usual socket: whoever may is root."""
    path = Path("/var/run/docker.sock")
    if not path.exists():
        return
    mode = path.stat().st_mode & 0o777
    yield _one(
        "socket",
        not mode & 0o007,
        f"{path} has mode {mode:o}",
        f"{path} has mode {mode:o}: every user of this machine can become root",
        f"chmod o= {path}",
        "problem",
    )


CHECKS: tuple[Check, ...] = (
    python,
    kernel,
    privileges,
    namespaces,
    cgroups,
    storage,
    network,
    programs,
    security,
    socket,
)


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _module(name: str) -> bool:
    """Loaded, or built in with parameters or a version."""
    return Path("/sys/module", name).exists()


def _shown_in_use(module: str) -> bool:
    """Modules that are built in without a trace in sysfs leave their symbols, for root to see."""
    marks = {"veth": " veth_setup", "bridge": " br_add_bridge", "nf_tables": " nft_register_chain_type"}
    try:
        with Path("/proc/kallsyms").open() as symbols:
            return any(marks[module] in line for line in symbols)
    except OSError:
        return False


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`, by the longest mount point above it."""
    from longshore.linux.mount import mountinfo

    resolved = path.resolve()
    holding = [point for point in mountinfo() if resolved.is_relative_to(point.target)]
    return max(holding, key=lambda point: len(point.target)).fstype if holding else "unknown"


def _version(program: str, arguments: list[str]) -> str:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return f"{program} does not answer"
    found = re.search(r"v?\d+\.\d+[\w.+~-]*", done.stdout)
    return f"{found[0]} ({program})" if found else program
