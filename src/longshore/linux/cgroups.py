"""A container's cgroup in every hierarchy the machine has; see cgroups(7).

On v1 and hybrid machines a cgroup is one directory for each controller, on v2 a single one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from longshore.linux.host import HostFacts


def allow_real_time(path: str, host: HostFacts, period: int, runtime: int) -> None:
    """Let the cgroup's parents have this much real-time, in microseconds; v1 gives new ones none.

    Each can have no more than its own parent. 0 leaves a value as it is. Raises OSError.
    """
    mount = host.cgroup_mounts.get("cpu")
    if mount is None or not path.startswith("/"):
        return
    for parent in reversed(Path(path).parents[:-1]):
        directory = Path(mount, *parent.parts[1:])
        directory.mkdir(mode=0o755, exist_ok=True)
        for file, value in (("cpu.rt_period_us", period), ("cpu.rt_runtime_us", runtime)):
            if value:
                (directory / file).write_text(str(value))


class Cgroup:
    """A cgroup by its path below the hierarchies' roots, e.g. `/docker/<id>`."""

    def __init__(self, path: str, host: HostFacts) -> None:
        """Raises ValueError for a path that would lead out of the hierarchies."""
        if ".." in Path(path).parts:
            raise ValueError(f"cgroup path {path!r} leads upwards")
        self.path = "/" + path.strip("/")
        self.unified = host.unified
        self._mounts = host.cgroup_mounts

    def directory(self, controller: str) -> Path:
        """Where the controller's files are. On hybrid a controller may be in the v2 tree only."""
        mount = self._mounts[""] if self.unified else self._mounts.get(controller, self._mounts.get(""))
        if mount is None:
            raise FileNotFoundError(errno.ENOENT, "no such cgroup controller", controller)
        return Path(mount, self.path.lstrip("/"))

    def directories(self) -> list[Path]:
        """The cgroup's directories that exist, one for each hierarchy."""
        found = {Path(mount, self.path.lstrip("/")) for mount in self._mounts.values()}
        return sorted(directory for directory in found if directory.is_dir())

    def read(self, controller: str, file: str) -> str | None:
        """A file's content without the last newline; None if cgroup or file is not there (any more)."""
        try:
            return (self.directory(controller) / file).read_text().rstrip("\n")
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                return None
            raise

    def read_number(self, controller: str, file: str) -> int | None:
        """A file of one number; None if it is not there or says `max`."""
        text = self.read(controller, file)
        return None if text is None or text == "max" else int(text)

    def read_flat(self, controller: str, file: str) -> dict[str, int]:
        """A file of lines `key number`, such as memory.stat; empty if it is not there."""
        lines = (self.read(controller, file) or "").splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if " " in line)
        return {key: int(value) for key, value in pairs}

    def write(self, controller: str, values: Mapping[str, str]) -> None:
        """Write files in the order given. Raises OSError as the kernel refuses."""
        directory = self.directory(controller)
        for file, value in values.items():
            with (directory / file).open("w") as stream:
                stream.write(value)

    def processes(self) -> set[int]:
        """The processes in it and below it, in any hierarchy."""
        found: set[int] = set()
        for directory in self.directories():
            for below, _, _ in os.walk(directory):
                with suppress(OSError):
                    found.update(map(int, Path(below, "cgroup.procs").read_text().split()))
        return found

    def move(self, pid: int) -> None:
        """Put a process into it, in every hierarchy. Raises OSError."""
        for directory in self.directories():
            (directory / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove it and what is below it, in every hierarchy; missing is no error.

        Raises OSError (EBUSY) while processes are inside.
        """
        for directory in self.directories():
            for below, _, _ in os.walk(directory, topdown=False):
                with suppress(FileNotFoundError):
                    Path(below).rmdir()


def container_cgroup(cgroups_path: str, host: HostFacts) -> Cgroup:
    """The cgroup of an OCI `cgroupsPath`: a path, or systemd's `slice:prefix:name`."""
    if cgroups_path.count(":") != 2:
        return Cgroup(cgroups_path, host)
    parent, prefix, name = cgroups_path.split(":")
    return Cgroup(f"{_expand_slice(parent)}/{prefix}-{name}.scope", host)


def _expand_slice(name: str) -> str:
    """`a-b.slice` lies in `a.slice/a-b.slice`; see systemd.slice(5)."""
    stem = name.removesuffix(".slice")
    if stem in ("", "-"):
        return ""
    parts = stem.split("-")
    return "/".join("-".join(parts[: end + 1]) + ".slice" for end in range(len(parts)))
