"""What the engine knows of each process: started or not, ended or not, its pipes.

Exits reach us twice or never: from the event stream, which has no replay, and from listing the tasks after
every break of it. This table is where each exit is let through exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from longshore.runtime.containerd.fifos import FIFOs, make
from longshore.runtime.task import Attach, ExitStatus


@dataclass(slots=True)
class Process:
    """A process of a container; `exec_id` is empty for its first."""

    id: str
    exec_id: str
    pid: int = 0
    started: bool = False
    exit: ExitStatus | None = None
    fifos: FIFOs | None = None
    close_stdin: bool = False
    """Its input is to be closed as soon as it was seen to start."""


@dataclass(slots=True)
class Processes:
    """Every process by container and exec id."""

    table: dict[str, dict[str, Process]] = field(default_factory=dict)

    def add(self, process: Process) -> Process:
        """Know a process from now on, in place of an earlier one of its ids."""
        self.table.setdefault(process.id, {})[process.exec_id] = process
        return process

    def get(self, id: str, exec_id: str = "") -> Process | None:
        """The process, if it is known."""
        return self.table.get(id, {}).get(exec_id)

    def forget(self, id: str, exec_id: str = "") -> Process | None:
        """Forget a process; with a container's first one go all of it."""
        of_container = self.table.get(id)
        if of_container is None:
            return None
        process = of_container.get(exec_id)
        if exec_id:
            of_container.pop(exec_id, None)
        else:
            del self.table[id]
        return process

    def exited(self, id: str, exec_id: str, pid: int, status: ExitStatus) -> bool:
        """Note an exit; whether it is news."""
        process = self.get(id, exec_id)
        if process is None:
            # Not ours to begin with, or deleted: its exit was given to whoever deleted it.
            return False
        if process.exit is not None or (process.pid and pid and process.pid != pid):
            return False
        process.exit = status
        return True

    def alive(self) -> list[Process]:
        """The processes whose exit is still to come."""
        return [
            process
            for of_container in self.table.values()
            for process in of_container.values()
            if process.exit is None and (process.started or not process.exec_id)
        ]


@contextmanager
def streams(
    process: Process, directory: Path, stdin: bool, terminal: bool, attach: Attach, *, keep: bool
) -> Iterator[FIFOs]:
    """A process's pipes, made in `directory` and handed out; they go again if what is done with them fails.

    `keep`: the shim opens them only when the process is started, so our guards stay until then. It does so
    for execs, and for what is restored from a checkpoint.
    """
    process.fifos, stdio = make(directory, process.exec_id or "init", stdin=stdin, terminal=terminal)
    try:
        attach(stdio)
        yield process.fifos
    except BaseException:
        process.fifos.remove()
        raise
    if not keep:
        process.fifos.drop_output_guards()
