"""Who hears of tasks, and what of containerd's events they hear."""

from __future__ import annotations

import logging
from collections.abc import Callable

from longshore.runtime.containerd.events import decode
from longshore.runtime.containerd.processes import Processes
from longshore.runtime.containerd.proto import containerd_pb2 as pb
from longshore.runtime.task import ExitStatus, TaskEvent


class Subscribers:
    """Each is called on the event loop with every event; of each exit they hear once."""

    def __init__(self, processes: Processes, log: logging.Logger) -> None:
        """`processes` is what exits are told from repetitions by, and learns pids from events."""
        self._processes = processes
        self._log = log
        self._callbacks: list[Callable[[TaskEvent], None]] = []

    def add(self, callback: Callable[[TaskEvent], None]) -> Callable[[], None]:
        """Tell it from now on; returns what undoes this."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def received(self, envelope: pb.Envelope) -> None:
        """Pass one of containerd's events on."""
        event = decode(envelope)
        if event is None:
            return
        if event.kind == "exit":
            self.exited(event)
            return
        process = self._processes.get(event.id, event.exec_id)
        if process is not None and event.kind in ("create", "start", "exec-started") and event.pid:
            process.pid = event.pid
        self._emit(event)

    def exited(self, event: TaskEvent) -> None:
        """Pass an exit on if it is news."""
        status = ExitStatus(event.exit_code, event.exited_at)
        if self._processes.exited(event.id, event.exec_id, event.pid, status):
            self._emit(event)

    def _emit(self, event: TaskEvent) -> None:
        for callback in list(self._callbacks):
            try:
                callback(event)
            except Exception:
                self._log.exception("a receiver of task events failed: %s of %s", event.kind, event.id)
