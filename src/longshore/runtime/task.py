"""The TaskRuntime protocol: all that the engine asks of whoever runs a container's processes.

A *task* is a container's running (or created, or stopped but not yet deleted) incarnation. Its first process
has the empty exec id; every further process is an exec with an id of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

TaskStatus = Literal["unknown", "created", "running", "stopped", "paused"]
TaskEventKind = Literal[
    "create", "start", "exit", "oom", "exec-added", "exec-started", "paused", "resumed", "checkpointed"
]


@dataclass(slots=True)
class Stdio:
    """A process's standard streams, seen from outside: non-blocking descriptors, owned by the receiver.

    `stdin` is written, the others are read. None where the process has no such stream (stderr of a terminal).
    End of file on `stdout`/`stderr` comes when the last process holding the stream is gone.
    """

    stdin: int | None
    stdout: int | None
    stderr: int | None


Attach = Callable[[Stdio], None]


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """Which OCI runtime to use, as `runtimes` in daemon.json tells it."""

    name: str = "runc"
    path: str = "runc"
    """The OCI runtime's binary: a name looked up in $PATH, or an absolute path. Only for runc's shim."""
    type: str = "io.containerd.runc.v2"
    """The containerd shim: a name such as "io.containerd.kata.v2", or a shim's absolute path."""
    root: str = ""
    """Where the OCI runtime keeps its state; its own default if empty."""
    systemd_cgroup: bool = False


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: `code` is 128 + n after signal n; `exited_at` in nanoseconds since the epoch."""

    code: int
    exited_at: int


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task as the runtime knows it now; `exit_code` and `exited_at` (ns) count once it is stopped."""

    id: str
    pid: int
    status: TaskStatus
    exit_code: int
    exited_at: int


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """Something happened to a task. `exec_id` is empty for the container's first process.

    Events of one container come in order; each process's exit comes exactly once.
    """

    kind: TaskEventKind
    id: str
    exec_id: str = ""
    pid: int = 0
    exit_code: int = 0
    exited_at: int = 0


@dataclass(frozen=True, slots=True)
class Metrics:
    """A container's resource use, as its cgroup tells it. Times are nanoseconds, sizes bytes."""

    read_at: int
    cgroup: Literal[1, 2]
    cpu_total: int = 0
    cpu_user: int = 0
    cpu_kernel: int = 0
    per_cpu: tuple[int, ...] = ()
    """cgroup v1 only."""
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0
    pids: int = 0
    pids_limit: int = 0
    memory_usage: int = 0
    memory_max_usage: int = 0
    memory_limit: int = 0
    memory_failcnt: int = 0
    memory: Mapping[str, int] = field(default_factory=dict)
    """The lines of memory.stat, named as the kernel names them in this cgroup version."""
    blkio: Mapping[str, tuple[tuple[int, int, str, int], ...]] = field(default_factory=dict)
    """(major, minor, operation, value) by Docker's name of the list, e.g. "io_service_bytes_recursive"."""


class TaskRuntime(Protocol):
    """Runs containers' processes. Every method may raise NotFound, Conflict, Unavailable or System."""

    async def close(self, stop_child: bool) -> None:
        """Let go of the runtime; with `stop_child` what the engine itself started for it ends, too."""

    async def create(
        self,
        id: str,
        spec: bytes,
        *,
        stdin: bool,
        terminal: bool,
        runtime: RuntimeOptions,
        attach: Attach,
        checkpoint: Path | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> int:
        """Make the container's first process, ready to be started; its pid, 0 with a `checkpoint`.

        `spec` is the OCI config.json. `attach` is called with the streams before the runtime is. On failure
        nothing is left behind and the streams come to their end. Raises Conflict if the id is active.
        """

    async def start(self, id: str) -> int:
        """Let the created process run the container's program; its pid, at the latest known by now."""

    async def kill(self, id: str, signal: int, *, exec_id: str = "", all: bool = False) -> None:
        """Send a signal to a process, or to every process of the container. NotFound if it is over."""

    async def pause(self, id: str) -> None:
        """Freeze the container."""

    async def resume(self, id: str) -> None:
        """Thaw the container."""

    async def resize(self, id: str, width: int, height: int, exec_id: str = "") -> None:
        """Tell a process's terminal its size, in character cells."""

    async def close_stdin(self, id: str, exec_id: str = "") -> None:
        """End a process's standard input; waits for the start if that was not yet seen."""

    async def pids(self, id: str) -> list[int]:
        """The container's processes, by their ids in the host's pid namespace."""

    async def metrics(self, id: str) -> Metrics:
        """What the container uses now."""

    async def update(self, id: str, resources: bytes) -> None:
        """Change the limits of a running container; `resources` is the OCI linux.resources as JSON."""

    async def checkpoint(self, id: str, directory: Path, exit: bool) -> None:
        """Write the container's state with CRIU into `directory`, and stop it if `exit`."""

    async def exec_create(
        self, id: str, exec_id: str, process: bytes, *, stdin: bool, terminal: bool, attach: Attach
    ) -> None:
        """Prepare a further process; `process` is an OCI process as JSON. Conflict if the id is in use."""

    async def exec_start(self, id: str, exec_id: str) -> int:
        """Start a prepared process; its pid. On failure the exec is gone."""

    async def exec_delete(self, id: str, exec_id: str) -> ExitStatus | None:
        """Forget an ended (or never started) exec; None if it was forgotten already."""

    async def delete(self, id: str) -> ExitStatus | None:
        """Forget a stopped task; None if there was none. Conflict if it still runs."""

    async def tasks(self) -> list[TaskInfo]:
        """Every task there is."""

    async def reattach(self, id: str, *, stdin: bool, terminal: bool, attach: Attach) -> None:
        """After a restart of the daemon: open the streams of a task that runs already."""

    def subscribe(self, callback: Callable[[TaskEvent], None]) -> Callable[[], None]:
        """Call `callback` with every event from now on, on the loop; the returned function ends that."""
