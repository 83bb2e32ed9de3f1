"""A container while the daemon lives: its record, its lock, and who waits for what becomes of it."""

from __future__ import annotations

import asyncio
from functools import cached_property
from pathlib import Path
from typing import Literal

from longshore.containers.record import ContainerRecord, RecordMountPoint, RecordNetworkSettings, RecordState
from longshore.types.container import Config, HostConfig
from longshore.types.timestamp import ZERO_TIME, now, parse_rfc3339

WaitCondition = Literal["not-running", "next-exit", "removed"]


class Container:
    """One container. Everything but reading happens under `lock`, on the event loop's thread.

    `lock` is held for the whole of a start, an exit's handling, a removal: two clients that want opposite
    things get their turns one after the other, and each judges the state it then finds.
    """

    def __init__(self, record: ContainerRecord, host_config: HostConfig, root: Path) -> None:
        self.record = record
        self.host_config = host_config
        self.root = root
        """`<data-root>/containers/<id>`."""
        self.lock = asyncio.Lock()
        self.save_lock = asyncio.Lock()
        self.saved: tuple[bytes, bytes] = (b"", b"")
        """The record and the host configuration as they were last written."""
        self.rootfs: Path | None = None
        """Where the merged file system is mounted; None while it is not."""
        self.keep_after_exit = 0
        """While a restart holds it up, `--rm` does not take the container away."""
        self.stop_requested = False
        """A stop is under way: the restart policy must not answer the exit it brings about."""
        self.secret_environment: dict[str, str] = {}
        """Variables of its process that are never written down, of a build's step."""
        self.exit_error = ""
        self.restart_delay = 0.0
        self.task_deletion: asyncio.Task[bool] | None = None
        """The runtime still gets rid of the last run; the next must wait for that."""
        self.restart_task: asyncio.Task[None] | None = None
        self.removed = False
        self._waiters: dict[WaitCondition, list[asyncio.Future[tuple[int, str]]]] = {}

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.record.ID

    @property
    def name(self) -> str:
        """The name without the slash Docker puts before it."""
        return self.record.Name.removeprefix("/")

    @property
    def config(self) -> Config:
        """The portable part of what was asked for."""
        return self.record.Config

    @cached_property
    def created(self) -> int:
        """When it was made, nanoseconds since the epoch."""
        return parse_rfc3339(self.record.Created)

    @property
    def state(self) -> RecordState:
        """Where the container is in its life."""
        return self.record.State

    @property
    def networks(self) -> RecordNetworkSettings:
        """What is kept of the container's networks."""
        return self.record.NetworkSettings

    @property
    def mount_points(self) -> dict[str, RecordMountPoint]:
        """Destination to mount."""
        return self.record.MountPoints

    @property
    def status(self) -> str:
        """The one word of `docker inspect`: created, running, paused, restarting, removing, exited, dead."""
        state = self.state
        if state.Running:
            return "paused" if state.Paused else "restarting" if state.Restarting else "running"
        if state.Restarting:
            return "restarting"
        if state.RemovalInProgress:
            return "removing"
        if state.Dead:
            return "dead"
        return "created" if state.StartedAt == ZERO_TIME else "exited"

    def set_running(self, pid: int, started_at: str | None = None) -> None:
        """The task was started."""
        state = self.state
        state.Error = ""
        state.Starting = False
        state.Running, state.Paused, state.Restarting = True, False, False
        state.ExitCode, state.Pid = 0, pid
        state.OOMKilled = False
        state.StartedAt = started_at or now()
        self.record.HasBeenStartedBefore = True

    def set_stopped(self, exit_code: int, finished_at: str | None = None) -> None:
        """The task is gone and cleaned up after; whoever waited is told."""
        state = self.state
        state.Starting, state.Running, state.Paused, state.Restarting = False, False, False, False
        state.Pid, state.ExitCode = 0, exit_code
        state.FinishedAt = finished_at or now()
        self._wake("not-running", "next-exit")

    def set_restarting(self, exit_code: int, finished_at: str | None = None) -> None:
        """The task is gone and the restart policy will start another: waiters for an exit are told."""
        state = self.state
        state.Running, state.Restarting, state.Paused = True, True, False
        state.Pid, state.ExitCode = 0, exit_code
        state.FinishedAt = finished_at or now()
        self._wake("next-exit")

    def set_start_failed(self, exit_code: int, error: str) -> None:
        """A start was undone; nothing runs. An exit that nobody will see any more is told to waiters."""
        state = self.state
        state.Error = error
        state.Starting = False
        state.Running, state.Paused, state.Restarting, state.Pid = False, False, False, 0
        state.ExitCode = exit_code
        self._wake("not-running", "next-exit")

    def set_removed(self, error: str = "") -> None:
        """The container is gone for good, or could not be removed for `error`."""
        self.removed = not error
        self.exit_error = error
        self._wake("not-running", "next-exit", "removed")

    def wait(self, condition: WaitCondition) -> asyncio.Future[tuple[int, str]]:
        """A future of (exit code, error message) for when the condition is met.

        `not-running` is met at once by a container that does not run. The others are edges.
        """
        future: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        if self.removed or (condition == "not-running" and not self.state.Running):
            future.set_result((self.state.ExitCode, ""))
        else:
            self._waiters.setdefault(condition, []).append(future)
            future.add_done_callback(lambda done: self._forget(condition, done))
        return future

    def _forget(self, condition: WaitCondition, future: asyncio.Future[tuple[int, str]]) -> None:
        waiting = self._waiters.get(condition, [])
        if future in waiting:
            waiting.remove(future)

    def _wake(self, *conditions: WaitCondition) -> None:
        for condition in conditions:
            for future in self._waiters.pop(condition, []):
                if not future.done():
                    future.set_result((self.state.ExitCode, self.exit_error))
