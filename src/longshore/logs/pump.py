"""The thread that reads the output of all containers.

One thread and one epoll for all: a chunk is read, given to the log driver and to the attached clients, and
the next container has its turn. Nothing here waits for anything but epoll and the disk: a container whose
client is behind is simply not read for a while.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from longshore.logs.driver import LogDriver, Queueing
from longshore.logs.intake import STREAMS, Intake, Spool
from longshore.logs.lines import LineSplitter
from longshore.logs.records import format_of
from longshore.logs.subscriber import Subscriber

_log = logging.getLogger(__name__)

CHUNK = 256 * 1024
_EVENTS = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
# A writer of single lines would wake us for each. After this many wakes in a row that came without a pause,
# wait a moment before looking again, so that its lines come in batches.
_BUSY_WAKES = 16
_PAUSE = 0.001


class Keep(NamedTuple):
    """Where output is kept until it is in its log; see `intake`."""

    directory: Path
    resume: bool
    """Go on with what an earlier daemon has left there."""


class Output:
    """The output of one run of a container (or exec): its streams, its log, its audience."""

    def __init__(
        self,
        fds: Iterable[tuple[str, int]],
        log: LogDriver | None,
        audience: Callable[[], Iterable[Subscriber]],
        on_end: Callable[[], None],
        keep: Keep | None = None,
    ) -> None:
        """`fds` are non-blocking read ends, owned from here on. `on_end` is called on the pump's thread once
        all of them have ended and been closed, or were abandoned. `keep`: what is read outlives a crash."""
        self.log = log
        self.sources = [_Source(fd, stream, self) for stream, fd in fds]
        self.audience = audience
        self.on_end = on_end
        self.keep = keep
        self.intake: Intake | None = None
        self.failed = False
        self.queue = log if isinstance(log, Queueing) else None

    def is_behind(self) -> bool:
        """Whether the log or a client cannot take more now."""
        return (self.queue is not None and self.queue.is_full()) or any(s.is_full() for s in self.audience())


class _Source:
    __slots__ = ("fd", "output", "paused", "splitter", "spool", "stream")

    def __init__(self, fd: int, stream: str, output: Output) -> None:
        self.fd = fd
        self.stream = stream
        self.output = output
        self.splitter = LineSplitter(output.log.piece) if output.log is not None else LineSplitter()
        self.spool: Spool | None = None
        self.paused = False


class LogPump:
    """See the module. Its methods may be called from any thread."""

    def __init__(self, patience: float = 300.0) -> None:
        """`patience`: seconds after which a client that takes nothing, while its container waits for it, is
        given up."""
        self._patience = patience
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._commands: deque[Callable[[], None]] = deque()
        self._sources: dict[int, _Source] = {}
        self._paused: set[_Source] = set()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="longshore-logs", daemon=True)
        self._thread.start()

    def add(self, output: Output) -> None:
        """Read all of `output` to its end."""
        self._call(lambda: self._add(output))

    def abandon(self, output: Output) -> None:
        """Close what of `output` has not ended, keeping what was read."""
        self._call(lambda: self._abandon(output))

    def resume(self) -> None:
        """A client has room again."""
        self._call(self._resume)

    def close(self) -> None:
        """Abandon everything and end the thread."""

        def stop() -> None:
            self._stopping = True

        self._call(stop)
        self._thread.join()

    def _call(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        wakes, last = 0, 0.0
        while not self._stopping:
            events = self._epoll.poll(self._timeout())
            now = time.monotonic()
            wakes = wakes + 1 if now - last < _PAUSE * 2 else 0
            for fd, _ in events:
                if fd == self._wake:
                    os.eventfd_read(fd)
                    self._obey()
                elif (source := self._sources.get(fd)) and self._try_to_read(source) >= CHUNK // 4:
                    wakes = 0
            if self._paused:
                self._give_up_the_stalled()
            if wakes > _BUSY_WAKES:
                time.sleep(_PAUSE)
            last = time.monotonic()
        for source in list(self._sources.values()):
            self._end(source, leaving=True)
        self._epoll.close()
        os.close(self._wake)

    def _obey(self) -> None:
        while self._commands:
            try:
                self._commands.popleft()()
            except Exception:
                _log.exception("the log pump could not carry out a command")

    def _timeout(self) -> float | None:
        # Also bounds how late a stalled client is noticed; without one, sleep until something happens.
        return min(1.0, self._patience) if self._paused else None

    def _add(self, output: Output) -> None:
        if output.queue is not None:
            output.queue.on_room = self.resume
        if output.keep is not None:
            self._open_intake(output, output.keep)
        for source in output.sources:
            self._sources[source.fd] = source
            self._epoll.register(source.fd, _EVENTS)
        if not output.sources:
            self._ended(output)

    def _open_intake(self, output: Output, keep: Keep) -> None:
        """Take in what an earlier daemon had read, first of all streams that have ended meanwhile."""
        log = output.log
        if log is None or log.file is None or not log.synchronous:
            return
        try:
            form = format_of(log.name)
            intake = Intake(keep.directory, log.file, form, log.piece, resume=keep.resume)
        except OSError as exc:
            _log.warning("output is not kept from a crash of the daemon: %s", exc)
            return
        output.intake = intake
        open_sources = {source.stream: source for source in output.sources}
        for stream in STREAMS:
            source = open_sources.get(stream) or _Source(-1, stream, output)
            source.spool = intake.spool(stream)
            self._keep(source, source.splitter.feed(source.spool.rest()))
            if source.fd < 0:
                self._keep(source, source.splitter.flush())

    def _ended(self, output: Output, *, leaving: bool = False) -> None:
        if output.intake is not None:
            output.intake.close(remove=not leaving)
            output.intake = None
        output.on_end()

    def _abandon(self, output: Output) -> None:
        for source in list(output.sources):
            self._end(source)

    def _try_to_read(self, source: _Source) -> int:
        try:
            return self._read(source)
        except Exception:
            _log.exception("giving up the %s of a container", source.stream)
            self._end(source)
            return 0

    def _read(self, source: _Source) -> int:
        try:
            chunk = source.spool.take(source.fd, CHUNK) if source.spool else os.read(source.fd, CHUNK)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if source.spool:
                self._give_up_intake(source.output, exc)
                return 0
            chunk = b""
        if not chunk:
            self._end(source)
            return 0
        for subscriber in source.output.audience():
            subscriber.put(source.stream, chunk)
        self._keep(source, source.splitter.feed(chunk))
        if source.output.is_behind():
            self._pause(source.output)
        return len(chunk)

    def _keep(self, source: _Source, blocks: Iterable[tuple[bytes, bool]]) -> None:
        log = source.output.log
        if log is None:
            return
        now, intake = time.time_ns(), source.output.intake
        if intake is not None:
            intake.begin(source.stream)
        for block, partial in blocks:
            try:
                log.log(source.stream, block, now, partial)
                source.output.failed = False
            except Exception as exc:
                # A full disk must stop neither the container nor the pump; dockerd drops the message too.
                if not source.output.failed:
                    _log.warning("Failed to log a message for %s: %s", source.stream, exc)
                source.output.failed = True
            if intake is not None:
                intake.logged(len(block))

    def _give_up_intake(self, output: Output, why: OSError) -> None:
        """The disk is full, or its file system cannot do it: from now on a crash loses what is being read."""
        _log.warning("output is no longer kept from a crash of the daemon: %s", why)
        if output.intake is not None:
            output.intake.close(remove=True)
            output.intake = None
        for source in output.sources:
            source.spool = None

    def _end(self, source: _Source, *, leaving: bool = False) -> None:
        """`leaving`: the daemon is, and the next one will go on with what is not logged yet."""
        output = source.output
        if self._sources.pop(source.fd, None) is not source:
            return
        if source.paused:
            self._paused.discard(source)
        else:
            self._epoll.unregister(source.fd)
        os.close(source.fd)
        if not (leaving and source.spool):
            self._keep(source, source.splitter.flush())
        output.sources.remove(source)
        if not output.sources:
            self._ended(output, leaving=leaving)

    def _pause(self, output: Output) -> None:
        for source in output.sources:
            if not source.paused:
                source.paused = True
                self._paused.add(source)
                self._epoll.unregister(source.fd)

    def _resume(self) -> None:
        for source in list(self._paused):
            if not source.output.is_behind():
                source.paused = False
                self._paused.discard(source)
                self._epoll.register(source.fd, _EVENTS)

    def _give_up_the_stalled(self) -> None:
        limit = time.monotonic() - self._patience
        for source in self._paused:
            for subscriber in source.output.audience():
                if subscriber.is_full() and subscriber.progressed < limit:
                    with contextlib.suppress(RuntimeError):  # its loop is closed
                        subscriber.give_up()
        self._resume()
