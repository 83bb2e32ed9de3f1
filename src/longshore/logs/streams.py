"""A container's standard streams, from its creation to its removal, through all its runs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from longshore.logs.attach import AttachResult, serve
from longshore.logs.driver import LogDriver
from longshore.logs.pump import Keep, LogPump, Output
from longshore.logs.stdin import Stdin
from longshore.logs.subscriber import Subscriber
from longshore.types.stream import RawConnection

PIPE_SIZE = 1024 * 1024
"""What a pipe may hold while nobody reads it, bytes; asked for, not insisted on."""


class ContainerStreams:
    """Owned by the event loop's thread. Clients may attach before the container starts; then they wait."""

    def __init__(self, pump: LogPump, tty: bool) -> None:
        self.tty = tty
        self.on_stdin_closed: Callable[[], Awaitable[None]] | None = None
        """Awaited once stdin was closed for a run, for runtimes that hold it open themselves."""
        self._pump = pump
        self._subscribers: tuple[Subscriber, ...] = ()
        self._run: _Run | None = None
        self._running = False
        self._stdin = Stdin()

    def start(
        self,
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
        log: LogDriver | None = None,
        keep: Keep | None = None,
    ) -> None:
        """Begin a run: take over the daemon's ends of its stdio, and its log. A run still on is given up.

        On a terminal, `stdout` is all there is. `keep`: what is read is kept until it is in the log.
        """
        if self._run is not None:
            self._run.abandon()
        fds = [(name, fd) for name, fd in (("stdout", stdout), ("stderr", stderr)) if fd is not None]
        for _, fd in fds:
            os.set_blocking(fd, False)
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self._stdin.open(stdin)
        self._running = True
        self._run = _Run(self, self._pump, fds, log, keep)

    async def drained(self, timeout: float | None = None) -> bool:
        """Wait, after an exit, until the run's output was read to its end and logged, and its log is closed.

        False if it was not within `timeout` seconds, because somebody still holds the writing end or a
        client is behind.
        """
        if self._run is None:
            return True
        try:
            await asyncio.wait_for(self._run.done.wait(), timeout)
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Give up the run, if any, and let go of all attached clients: after a start that failed, after a
        drain that timed out, at the removal."""
        self._stdin.reset()
        if self._run is not None:
            self._run.abandon()
        self._end_subscribers()

    async def write_stdin(self, data: bytes) -> None:
        """Write everything, waiting for the start and for room. BrokenPipeError if stdin is closed."""
        await self._stdin.write(data)

    async def close_stdin(self) -> None:
        """Close the run's stdin, or the next one's if none runs, behind what was written to it."""
        await self._stdin.close()
        if self.on_stdin_closed is not None:
            await self.on_stdin_closed()

    async def attach(
        self,
        conn: RawConnection,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
        detach_keys: bytes | None = None,
        multiplex: bool = True,
        stdin_once: bool = False,
        replay: AsyncIterator[bytes] | None = None,
    ) -> AttachResult:
        """Serve one client until its end, and close `conn`. What was in the log before comes from `replay`.

        `detach_keys` (None is ctrl-p,ctrl-q) count only with `tty`, as does `multiplex` only without.
        """
        names = {"stdout": stdout, "stderr": stderr}
        subscriber = Subscriber(frozenset(n for n, wanted in names.items() if wanted), self._pump.resume)
        run = self._run if self._running else None
        try:
            if replay is not None:
                with contextlib.suppress(OSError):
                    async for chunk in replay:
                        await conn.write(chunk)
            self._subscribers = (*self._subscribers, subscriber)
            if run is not None and not (self._running and self._run is run):
                subscriber.end()  # it was over before the replay was
            return await serve(
                conn,
                subscriber,
                write_stdin=self.write_stdin if stdin else None,
                close_stdin=self.close_stdin if stdin_once and not tty else None,
                detach_keys=detach_keys if tty else b"",
                multiplex=multiplex and not tty,
            )
        finally:
            subscriber.end()
            self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)
            self._pump.resume()
            with contextlib.suppress(OSError):
                await conn.close()

    def audience(self) -> tuple[Subscriber, ...]:
        """Who listens; read by the pump's thread."""
        return self._subscribers

    def run_ended(self) -> None:
        """The run's output has come to its end; clients get what is theirs and leave."""
        self._stdin.reset()
        self._end_subscribers()

    def _end_subscribers(self) -> None:
        self._running = False
        for subscriber in self._subscribers:
            subscriber.end()
        # They stay in the audience until they have left, so that nothing is asked to resume too late.


class _Run:
    """One run of the container: what must be let go of when it ends."""

    def __init__(
        self,
        streams: ContainerStreams,
        pump: LogPump,
        fds: list[tuple[str, int]],
        log: LogDriver | None,
        keep: Keep | None,
    ) -> None:
        self.done = asyncio.Event()
        self._streams = streams
        self._pump = pump
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._abandoned = False
        self._closing: asyncio.Task[None] | None = None
        self._output = Output(fds, log, self._audience, self._ended, keep)
        pump.add(self._output)

    def abandon(self) -> None:
        """Read no more; whoever attaches from now on belongs to another run."""
        self._abandoned = True
        self._pump.abandon(self._output)

    def _audience(self) -> tuple[Subscriber, ...]:
        return () if self._abandoned else self._streams.audience()

    def _ended(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: the daemon is leaving
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self._abandoned:
            self._streams.run_ended()
        self._closing = asyncio.ensure_future(self._close_log())

    async def _close_log(self) -> None:
        try:
            if self._log is not None:
                await asyncio.to_thread(self._log.close)
        finally:
            self.done.set()
