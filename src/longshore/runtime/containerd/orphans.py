"""What containerd has lost sight of: shims of tasks whose creation was cut off, with all that is theirs.

containerd gives up a creation when its client dies, and forgets it when it dies itself; the shim it had
started for it, the runtime's state and the cgroups then stay for ever, and nobody else knows of them.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from longshore.linux.mount import UnmountFlags, mountinfo, umount

SHIM_SOCKETS = Path("/run/containerd/s")
RUNTIME_STATE = Path("/run/containerd/runc")
"""Where runc's shim lets its runtime keep its state, a directory for each namespace."""
_PATIENCE = 3.0
_ID = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
"""As containerd takes them: never a path."""


class Orphans:
    """Finds and removes the orphans of one containerd, told by its socket. Its methods block."""

    def __init__(self, address: Path, namespace: str, directories: Collection[Path]) -> None:
        """`directories`: containerd's own state and root, below which the bundles are."""
        self._address = str(address)
        self._namespace = namespace
        self._bundles = [path / "io.containerd.runtime.v2.task" / namespace for path in directories]

    def find(self) -> set[str]:
        """The ids of all tasks that there is a shim or a bundle of, whether containerd knows them or not."""
        ids = {id for id, _ in self._shims()}
        for bundles in self._bundles:
            with suppress(FileNotFoundError):
                ids.update(path.name for path in bundles.iterdir())
        return ids

    def remains(self, id: str) -> bool:
        """Whether there is something of a task that containerd does not know. Costs some microseconds."""
        places = [RUNTIME_STATE / self._namespace, *self._bundles]
        return self._socket(id).exists() or any((place / id).exists() for place in places)

    def remove(self, id: str) -> None:
        """End the task's shim with all below it, and remove what they had made."""
        deadline = time.monotonic() + _PATIENCE
        # One that is being created makes processes and cgroups still: look again until there are no more.
        while (doomed := self._processes(id)) and time.monotonic() < deadline:
            with ExitStack() as stack:
                held = {pid: fd for pid in doomed if (fd := _hold(pid, stack)) is not None}
                # Whoever is found again is who is held: by now a number might be another's.
                for pid in self._processes(id) & held.keys():
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(held[pid], signal.SIGKILL)
                while any(_alive(pid) for pid in held) and time.monotonic() < deadline:
                    time.sleep(0.01)
        while (cgroups := cgroups_of(id)) and time.monotonic() < deadline:
            for cgroup in cgroups:
                for below, _, _ in os.walk(cgroup, topdown=False):
                    with suppress(OSError):  # EBUSY until the kernel is done with who was in it
                        Path(below).rmdir()
        for bundles in self._bundles:
            with suppress(OSError):
                umount(bundles / id / "rootfs", UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)
            shutil.rmtree(bundles / id, ignore_errors=True)
        shutil.rmtree(RUNTIME_STATE / self._namespace / id, ignore_errors=True)
        self._socket(id).unlink(missing_ok=True)

    def _socket(self, id: str) -> Path:
        # As containerd's shims name theirs: by their containerd, namespace and id.
        name = "/".join((self._address.rstrip("/"), self._namespace, id))
        return SHIM_SOCKETS / hashlib.sha256(name.encode()).hexdigest()

    def _processes(self, id: str) -> set[int]:
        """Shims and runtimes at work for the task, all below them, and who is in its cgroups; the living."""
        logs = [b"\0--log\0%b/log.json\0" % os.fsencode(bundles / id) for bundles in self._bundles]
        runtimes = [
            pid
            for pid, words in _command_lines()
            if any(log in words for log in logs) and _is_of_the_machine(pid)
        ]
        shims = [pid for each, pid in self._shims() if each == id]
        found = {*shims, *runtimes, *_descendants([*shims, *runtimes])}
        for cgroup in cgroups_of(id):
            for below, _, _ in os.walk(cgroup):
                with suppress(OSError):
                    found.update(map(int, Path(below, "cgroup.procs").read_text().split()))
        return {pid for pid in found if _alive(pid)} - {os.getpid()}

    def _shims(self) -> list[tuple[str, int]]:
        found = []
        for pid, words in _command_lines():
            arguments = words.decode(errors="replace").split("\0")
            if not Path(arguments[0]).name.startswith("containerd-shim"):
                continue
            options = dict(itertools.pairwise(arguments))
            ours = options.get("-address") == self._address and options.get("-namespace") == self._namespace
            id = options.get("-id", "")
            if ours and _ID.fullmatch(id) and _is_of_the_machine(pid, "containerd-shim"):
                found.append((id, pid))
        return found


def _is_of_the_machine(pid: int, program: str = "") -> bool:
    """Whether this is what the engine's own kind runs, and neither a user's nor a container's process.

    Those may call themselves what they like: what they say of themselves is killed and deleted.
    """
    place = Path(f"/proc/{pid}")
    try:
        # The owner of the directory is root for whoever does not want to be traced.
        users = re.search(r"^Uid:\s+(.*)$", (place / "status").read_text(errors="replace"), re.MULTILINE)
        ours = users is not None and set(users[1].split()) == {str(os.geteuid())}
        program_there = (place / "exe").readlink().name
        return ours and (place / "root").samefile("/") and program_there.startswith(program)
    except OSError:
        return False


def _hold(pid: int, stack: ExitStack) -> int | None:
    """A descriptor of the process, for as long as the stack; None if it has gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    stack.callback(os.close, fd)
    return fd


def _command_lines() -> Iterator[tuple[int, bytes]]:
    """Every process with its arguments, each ended by a zero byte."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes()


def _descendants(pids: Collection[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    todo = list(pids)
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def cgroups_of(id: str) -> list[Path]:
    """The task's cgroup in every hierarchy: it is named after its id, whatever its parent.

    Never one that only has the id in its name: all that is in what is found here is killed.
    """
    named = {id, f"docker-{id}.scope"}
    roots = {point.target for point in mountinfo() if point.fstype in ("cgroup", "cgroup2")}
    found = set()
    for root in roots:
        for directory, names, _ in os.walk(root):
            for name in names:
                if name in named:
                    found.add(Path(directory, name))
    return sorted(found)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
