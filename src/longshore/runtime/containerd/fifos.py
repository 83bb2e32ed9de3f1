"""The named pipes between a process's streams and the engine, as containerd's shims expect them.

The shim opens each pipe for reading and writing, so that a running process survives the engine. Until it has,
guards of our own stand in for it: without a writer our reader would see an end of file that is none, and
without a reader our writer would be refused. A pipe holds 1 MiB (fs.pipe-max-size permitting); while nobody
reads, a process that fills it waits, and what an already ended process left unread goes with the shim.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from longshore.errors import InvalidParameter
from longshore.runtime.task import Stdio

PIPE_SIZE = 1 << 20
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(slots=True)
class FIFOs:
    """The pipes of one process, made under `directory` with `prefix` as the beginning of their names."""

    directory: Path
    prefix: str
    stdin: str
    stdout: str
    stderr: str
    input_guards: list[int] = field(default_factory=list)
    output_guards: list[int] = field(default_factory=list)

    def drop_output_guards(self) -> None:
        """The shim has opened its ends of stdout and stderr: ours would only keep them from ending."""
        while self.output_guards:
            os.close(self.output_guards.pop())

    def drop_guards(self) -> None:
        """The shim has opened all of its ends, or never will."""
        self.drop_output_guards()
        while self.input_guards:
            os.close(self.input_guards.pop())

    def remove(self) -> None:
        """Unlink the pipes; who has them open can go on."""
        self.drop_guards()
        for path in (self.stdin, self.stdout, self.stderr):
            if path:
                with contextlib.suppress(FileNotFoundError):
                    Path(path).unlink()


def paths(directory: Path, prefix: str, *, stdin: bool, terminal: bool) -> FIFOs:
    """The names of a process's pipes; a terminal has no stderr of its own. Raises InvalidParameter."""
    for identifier in (directory.name, prefix):
        if not _IDENTIFIER.fullmatch(identifier):
            raise InvalidParameter(f"identifier {identifier!r} must match {_IDENTIFIER.pattern}")
    return FIFOs(
        directory,
        prefix,
        stdin=str(directory / f"{prefix}-stdin") if stdin else "",
        stdout=str(directory / f"{prefix}-stdout"),
        stderr="" if terminal else str(directory / f"{prefix}-stderr"),
    )


def make(directory: Path, prefix: str, *, stdin: bool, terminal: bool) -> tuple[FIFOs, Stdio]:
    """Make the pipes and open our ends, before the runtime sees them. Raises OSError, leaving none behind."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fifos = paths(directory, prefix, stdin=stdin, terminal=terminal)
    stdio = Stdio(None, None, None)
    fifos.remove()
    try:
        for path in (fifos.stdin, fifos.stdout, fifos.stderr):
            if path:
                os.mkfifo(path, 0o600)
        if fifos.stdin:
            fifos.input_guards.append(_open(fifos.stdin, os.O_RDONLY))
            stdio.stdin = _open(fifos.stdin, os.O_WRONLY)
        for name in ("stdout", "stderr"):
            if path := getattr(fifos, name):
                setattr(stdio, name, reader := _open(path, os.O_RDONLY))
                fifos.output_guards.append(_open(path, os.O_RDWR))
                _enlarge(reader)
    except BaseException:
        close(stdio)
        fifos.remove()
        raise
    return fifos, stdio


def reopen(fifos: FIFOs) -> Stdio:
    """Open the pipes of a process that runs already. A stream that it has closed is None."""
    stdio = Stdio(None, None, None)
    for name, flags in (("stdin", os.O_WRONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_RDONLY)):
        if path := getattr(fifos, name):
            try:
                setattr(stdio, name, _open(path, flags))
            except OSError as exc:
                if exc.errno not in (errno.ENXIO, errno.ENOENT):
                    close(stdio)
                    raise
    return stdio


def close(stdio: Stdio) -> None:
    """Close what is open of a process's streams."""
    for name in ("stdin", "stdout", "stderr"):
        if (fd := getattr(stdio, name)) is not None:
            os.close(fd)
            setattr(stdio, name, None)


def directories(directory: Path) -> set[str]:
    """The containers that there are pipes of."""
    with contextlib.suppress(FileNotFoundError):
        return {path.name for path in directory.iterdir()}
    return set()


def remove_directory(directory: Path) -> None:
    """Remove a container's pipes with their directory; tolerates that they are gone."""
    shutil.rmtree(directory, ignore_errors=True)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)


def _enlarge(fd: int) -> None:
    # EPERM: the user's pipe pages are used up, or the limit is lower than we ask. The default size works too.
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
