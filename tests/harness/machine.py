"""What a machine looks like, so that a test session can show it left everything as it was found."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/default/forwarding",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/forwarding",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
)
_SHARED_CGROUPS = ("docker",)
_SHARED_RUN = ("docker/plugins", "docker", "containerd", "runc", "crun", "mount")
_PROGRAMS = ("longshore", "dockerd", "docker-proxy", "containerd", "runc", "crun", "conmon")


@dataclass(frozen=True)
class Machine:
    """A snapshot. Every part is a set of lines that name one thing each."""

    mounts: frozenset[str]
    named_netns: frozenset[str]
    links: frozenset[str]
    addresses: frozenset[str]
    routes: frozenset[str]
    nft: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]
    run: frozenset[str]
    sysctls: frozenset[str]
    loop_devices: frozenset[str]

    @classmethod
    def look(cls) -> Machine:
        """Look at the machine as it is now."""
        return cls(
            mounts=frozenset(_mounts()),
            named_netns=frozenset(_listing("/run/netns")),
            links=frozenset(_listing("/sys/class/net")),
            addresses=_ip("-o", "address"),
            routes=_ip("route", "show", "table", "all") | _ip("-6", "route", "show", "table", "all"),
            nft=_nft_objects(),
            cgroups=frozenset(str(path) for path in _cgroup_directories()),
            processes=frozenset(_processes()),
            run=frozenset(_listing("/run")) | frozenset(f"docker/{name}" for name in _listing("/run/docker")),
            sysctls=frozenset(_sysctls()),
            loop_devices=frozenset(str(path) for path in Path("/sys/block").glob("loop*/loop/backing_file")),
        )

    def changes(self, later: Machine) -> list[str]:
        """What is different later, a line each: `links: + veth12`, `sysctls: - net/ipv4/ip_forward = 0`."""
        found = []
        for part in fields(self):
            before, after = getattr(self, part.name), getattr(later, part.name)
            found += [f"{part.name}: - {line}" for line in sorted(before - after)]
            found += [f"{part.name}: + {line}" for line in sorted(after - before)]
        return found


def give_back_shared(before: Machine) -> None:
    """Undo what engines and their tools leave on a machine on purpose, and which a first run therefore adds.

    IP forwarding, the default cgroup parent `docker` and directories below /run that are everybody's: each is
    given back only if it was not there before, and directories only if nothing is left in them.
    """
    for line in before.sysctls:
        name, _, value = line.partition(" = ")
        if line not in frozenset(_sysctls()):
            Path("/proc/sys", name).write_text(value)
    for cgroup in reversed(_cgroup_directories()):
        if cgroup.name in _SHARED_CGROUPS and str(cgroup) not in before.cgroups:
            with suppress(OSError):
                cgroup.rmdir()
    for name in _SHARED_RUN:
        if name not in before.run:
            _remove_empty(Path("/run", name))


def _remove_empty(directory: Path) -> None:
    """Remove a tree of directories if there is nothing but directories in it."""
    for path, _, files in os.walk(directory, topdown=False):
        if files:
            return
        with suppress(OSError):
            Path(path).rmdir()


def mounts_under(root: Path) -> list[str]:
    """Mount points at or below `root`, parents first."""
    prefix = f"{root}/"
    return sorted(
        point for point in (line.split()[4] for line in _mountinfo()) if f"{point}/".startswith(prefix)
    )


def processes_of(text: str) -> list[int]:
    """Processes, this one aside, whose command line contains `text` (a daemon's root, say)."""
    needle = text.encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if needle in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, as the kernel's parent links say now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def resident(pid: int) -> int:
    """Resident memory of one process in bytes (VmRSS); 0 once it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def cgroups_under(name: str) -> list[Path]:
    """Cgroup directories of that name, in every hierarchy, and all below them, parents first."""
    return [path for path in _cgroup_directories() if name in path.parts]


def _mountinfo() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def _mounts() -> list[str]:
    return [
        f"{parts[4]} ({parts[parts.index('-') + 1]})" for parts in (line.split() for line in _mountinfo())
    ]


def _listing(directory: str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208
    except OSError:
        return []


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout
    except FileNotFoundError:
        return ""


def _ip(*arguments: str) -> frozenset[str]:
    lines = _output("ip", *arguments).splitlines()
    return frozenset(" ".join(line.split(" valid_lft")[0].split(" expires ")[0].split()) for line in lines)


def _nft_objects() -> frozenset[str]:
    """Every nftables object (iptables-nft's among them), without counters and handles."""
    listing = _output("nft", "-j", "list", "ruleset")
    try:
        objects = json.loads(listing or "{}").get("nftables", [])
    except ValueError:
        return frozenset()
    return frozenset(json.dumps(_stable(item), sort_keys=True) for item in objects if "metainfo" not in item)


def _stable(item: object) -> object:
    if isinstance(item, dict):
        return {
            key: _stable(value) for key, value in item.items() if key not in ("handle", "counter", "expires")
        }
    if isinstance(item, list):
        return [_stable(value) for value in item]
    return item


def _cgroup_directories() -> list[Path]:
    return [Path(directory) for directory, _, _ in os.walk("/sys/fs/cgroup")]


def _processes() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if any(program in word for word in argv[:4] for program in _PROGRAMS):
                    found.append(f"{entry.name} {' '.join(argv)[:160]}")
    return found


def _sysctls() -> list[str]:
    found = []
    for name in _SYSCTLS:
        with suppress(OSError):
            found.append(f"{name} = {Path('/proc/sys', name).read_text().strip()}")
    return found
