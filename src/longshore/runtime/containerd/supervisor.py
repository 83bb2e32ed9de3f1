"""The containerd that is the engine's own: started, watched, and told to end.

It ends with the engine, whatever kills that, as dockerd's does: whichever daemon comes next on the same
roots starts its own, which finds the shims, and those outlive all of them. Its log goes to a file that we
follow, cut back when it has grown too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from longshore.errors import System
from longshore.linux.files import write_atomically

START_TIMEOUT = 15.0
STOP_TIMEOUT = 15.0
LOG_LIMIT = 4 << 20

# What tasks, containers and events do not need. containerd starts faster without, and opens no other socket.
_UNUSED_PLUGINS = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.podsandbox.controller.v1.podsandbox",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.overlayfs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.monitor.container.v1.restart",
    "io.containerd.transfer.v1.local",
    "io.containerd.grpc.v1.transfer",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.nri.v1.nri",
)

_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
_ORDINARY = re.compile(
    r'"?(cleaning up after shim disconnected|cleanup warnings|failed to remove runc container|copy shim log'
    r"|error from \*cgroupsv2\.Manager\.EventChan|Configuration migrated from version 2)"
)
"""Complaints of containerd 1.6 that come with ordinary exits, and one of 2.x that comes with every start."""
_LOG_LINE = re.compile(r'^time="[^"]*" level=(\w+) msg=(.*)$')


class Supervisor:
    """One containerd of our own, under `state_dir` and `root_dir`."""

    def __init__(
        self,
        state_dir: Path,
        root_dir: Path,
        *,
        oom_score: int,
        debug: bool,
        log: logging.Logger,
        before_start: Callable[[], Awaitable[None]],
    ) -> None:
        """`before_start` is awaited whenever one is about to be started, while there is none."""
        self.address = state_dir / "containerd.sock"
        self.died = asyncio.Event()
        self._state_dir = state_dir
        self._root_dir = root_dir
        self._oom_score = oom_score
        self._debug = debug
        self._log = log
        self._before_start = before_start
        self._config = state_dir / "containerd.toml"
        self._pid_file = state_dir / "containerd.pid"
        self._log_file = state_dir / "containerd.log"
        self._pidfd: int | None = None
        self._watched_pid: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._tail: asyncio.Task[None] | None = None
        self._log_offset = 0

    async def run(self) -> None:
        """Find our containerd or start one; returns once its socket answers. Raises System."""
        self._state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._root_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        found = self._watched_pid or self._find()
        if found is None:
            await self._start()
        try:
            await self._answering()
        except System:
            await self.kill()
            if not found:
                raise
            self._log.warning("containerd does not answer, starting another: pid=%d", found)
            await self._start()
            await self._answering()
        if self._tail is None:
            self._tail = asyncio.create_task(self._follow_log(), name="containerd-log")

    async def kill(self) -> None:
        """End containerd at once, e.g. because it hangs. Containers go on."""
        self._signal(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.died.wait(), STOP_TIMEOUT)

    async def close(self, stop: bool) -> None:
        """Stop watching; with `stop`, ask containerd to end and wait for that."""
        if stop and self._pidfd is not None:
            self._signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.died.wait(), STOP_TIMEOUT)
            except TimeoutError:
                await self.kill()
            for path in (self._pid_file, self.address, Path(f"{self.address}.ttrpc")):
                path.unlink(missing_ok=True)
        if self._tail is not None:
            self._tail.cancel()
            self._tail = None
            self._pass_on_log()
        self._forget()

    def _find(self) -> int | None:
        """The pid of a containerd that an earlier engine left running with our configuration."""
        try:
            pid = int(self._pid_file.read_text())
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError):
            return None
        # Only after the pidfd is held does what /proc says belong to the process that we would signal.
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            arguments = []
        if os.fsencode(self._config) not in arguments or Path(os.fsdecode(arguments[0])).name != "containerd":
            os.close(pidfd)
            return None
        self._log.info("containerd is still running: pid=%d", pid)
        with contextlib.suppress(OSError):
            self._log_offset = self._log_file.stat().st_size
        self._watch(pid, pidfd)
        return pid

    async def _start(self) -> None:
        binary = shutil.which("containerd")
        if binary is None:
            raise System("containerd: executable file not found in $PATH")
        self._forget()
        await self._before_start()
        write_atomically(self._config, self._configuration().encode())
        environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        self._log_offset = 0
        self.address.unlink(missing_ok=True)
        log = os.open(
            self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC | os.O_NOFOLLOW, 0o600
        )
        try:
            # Not in a thread: what it is bound to is the very thread that starts it.
            self._child = subprocess.Popen(  # noqa: ASYNC220 - some 2 ms
                _bound_to_us([binary, "--config", str(self._config)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(log)
        pid = self._child.pid
        self._watch(pid, os.pidfd_open(pid))
        write_atomically(self._pid_file, str(pid).encode())
        self._set_oom_score(pid)
        self._log.info("started containerd: pid=%d address=%s", pid, self.address)

    def _set_oom_score(self, pid: int) -> None:
        try:
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(self._oom_score))
        except OSError as exc:
            self._log.warning("cannot set containerd's OOM score to %d: %s", self._oom_score, exc.strerror)

    def _configuration(self) -> str:
        disabled = ", ".join(f'"{name}"' for name in _UNUSED_PLUGINS)
        return f"""version = 2
root = {_toml(self._root_dir)}
state = {_toml(self._state_dir / "daemon")}
disabled_plugins = [{disabled}]

[grpc]
  address = {_toml(self.address)}

[debug]
  level = "{"debug" if self._debug else "info"}"
"""

    async def _answering(self) -> None:
        """Wait until containerd accepts connections; System with the end of its log if it does not."""
        deadline = time.monotonic() + START_TIMEOUT
        while not _accepts(self.address):
            if self.died.is_set() or time.monotonic() > deadline:
                with contextlib.suppress(OSError):
                    tail = self._log_file.read_text(errors="replace").splitlines()[-5:]
                    for line in tail:
                        self._log.error("containerd: %s", line)
                what = "exited" if self.died.is_set() else "did not answer in time"
                raise System(f"failed to start containerd: it {what}; its log is {self._log_file}")
            await asyncio.sleep(0.005)

    def _watch(self, pid: int, pidfd: int) -> None:
        self._watched_pid = pid
        self._pidfd = pidfd
        self.died = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, self._ended)

    def _ended(self) -> None:
        self._pass_on_log()
        self._forget()
        self.died.set()

    def _forget(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = self._watched_pid = None
        if self._child is not None:
            # Reaps it if it has ended; if it goes on without us, so be it.
            if self._child.poll() is None:
                self._child.returncode = 0
            self._child = None

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def _follow_log(self) -> None:
        while True:
            self._pass_on_log()
            await asyncio.sleep(1)

    def _pass_on_log(self) -> None:
        with contextlib.suppress(OSError), self._log_file.open("rb+") as file:
            size = os.fstat(file.fileno()).st_size
            if size < self._log_offset:
                self._log_offset = 0
            if size == self._log_offset:
                return
            file.seek(max(self._log_offset, size - (256 << 10)))
            lines = file.read()
            whole = lines.rfind(b"\n") + 1
            self._log_offset = file.tell() - len(lines) + whole
            for line in lines[:whole].decode(errors="replace").splitlines():
                self._relay(line)
            if self._log_offset > LOG_LIMIT:
                file.truncate(0)  # containerd appends, so it goes on at the new end
                self._log_offset = 0

    def _relay(self, line: str) -> None:
        parsed = _LOG_LINE.match(line)
        level, message = (_LEVELS.get(parsed[1], logging.INFO), parsed[2]) if parsed else (logging.INFO, line)
        # What containerd finds worth an info is of interest to who debugs the engine, not to its user.
        if level == logging.INFO or (level <= logging.ERROR and _ORDINARY.match(message)):
            level = logging.DEBUG
        self._log.log(level, "containerd: %s", message)


def _bound_to_us(command: list[str]) -> list[str]:
    """The command, to be run so that the kernel kills it when the thread that starts it ends: ours is the one
    that everything ends with. If we have ended before it is bound, it is not run.

    PR_SET_PDEATHSIG is nothing that one process could set for another; see prctl(2).
    """
    setpriv, us = shutil.which("setpriv"), str(os.getpid())
    if setpriv is not None and Path(setpriv).resolve().name == "setpriv":  # busybox's does not know of it
        run = '[ "$PPID" = "$0" ] && exec "$@"'
        return [setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", run, us, *command]
    script = (
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
        "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
    )
    return [sys.executable, "-I", "-S", "-c", script, us, *command]


def _accepts(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(address))
        except OSError:
            return False
        return True


def _toml(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
