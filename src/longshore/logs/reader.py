"""Reading logs back, framed for the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote_plus

import msgspec

from longshore.errors import NotImplementedHere
from longshore.logs.cursor import Cursor
from longshore.logs.driver import LogDriver
from longshore.logs.logfile import LogFile
from longshore.logs.records import Record, format_of
from longshore.types.timestamp import rfc3339_fixed

_CHUNK = 64 * 1024


class LogSource(msgspec.Struct, frozen=True):
    """The log of a container that does not run."""

    driver: str
    path: Path | None
    """See `info.log_path`; None for a driver that cannot be read."""


class ReadOptions(msgspec.Struct, kw_only=True, frozen=True):
    """What of a log is wanted (GET /containers/{id}/logs)."""

    stdout: bool = True
    stderr: bool = True
    since: int | None = None
    """Nanoseconds since the epoch; records from then on."""
    until: int | None = None
    """Nanoseconds since the epoch; records up to then."""
    tail: int = -1
    """The last so many records, counted before anything is filtered; negative is all."""
    follow: bool = False
    timestamps: bool = False
    details: bool = False


async def read_logs(
    source: LogDriver | LogSource, options: ReadOptions, *, multiplex: bool
) -> AsyncIterator[bytes]:
    """Yield the log in large chunks; with `follow`, until the run of the container ends.

    With `multiplex` every record is a frame of the multiplexed stream, without, one follows the other raw.
    A driver that is given is the one of the run; the log of a container that does not run is a LogSource.
    Raises NotImplementedHere if the driver cannot be read, and OSError.
    """
    live, path = _locate(source)
    renderer = _Renderer(options, multiplex)
    name = source.driver if isinstance(source, LogSource) else source.name
    form = format_of(name)
    with ExitStack() as undo:
        alarm = _Alarm()
        if live is not None and options.follow:
            undo.enter_context(live.watch(alarm.ring))
        cursor: Cursor | None = None

        def step() -> tuple[bool, bytes]:
            nonlocal cursor
            if cursor is None:
                cursor = Cursor(path, live, form, options.tail, options.follow)
                undo.callback(cursor.close)
            chunk = b""
            # A short log is done with in one visit to a thread.
            while len(chunk) < _CHUNK and not renderer.finished:
                if not (data := cursor.read()):
                    return False, chunk
                chunk += renderer.render(form.decode(data))
            return True, chunk

        while not renderer.finished:
            closed = live is None or live.closed
            alarm.arm()
            more, chunk = await asyncio.to_thread(step)
            if chunk:
                yield chunk
            if more:
                continue
            if closed or not options.follow:
                break
            if not await alarm.wait(options.until):
                return
        if (
            closed
            and cursor
            and not renderer.finished
            and (last := renderer.render(form.decode(cursor.rest())))
        ):
            yield last


def check_readable(source: LogDriver | LogSource) -> None:
    """Raises NotImplementedHere if the log cannot be read back."""
    _locate(source)


def _locate(source: LogDriver | LogSource) -> tuple[LogFile | None, Path]:
    if isinstance(source, LogSource):
        if source.path is not None:
            return None, source.path
    elif source.file is not None:
        return source.file, source.file.path
    raise NotImplementedHere("configured logging driver does not support reading")


class _Alarm:
    """Tells a follower on the loop that the pump's thread has written something, once for each arming."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._armed = False

    def arm(self) -> None:
        """Before looking at the file, so that what is written behind the look rings."""
        self._event.clear()
        self._armed = True

    def ring(self) -> None:
        """Called by the writer."""
        if self._armed:
            self._armed = False
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, until: int | None) -> bool:
        """False if the time `until` (nanoseconds since the epoch) came first."""
        timeout = None if until is None else max(0.0, (until - time.time_ns()) / 1e9)
        try:
            await asyncio.wait_for(self._event.wait(), timeout)
        except TimeoutError:
            return False
        return True


_HEADERS = {
    stream: [code + b"\0\0\0" + size.to_bytes(4, "big") for size in range(1024)]
    for stream, code in (("stdout", b"\x01"), ("stderr", b"\x02"))
}


class _Renderer:
    """Turns records into what goes over the wire."""

    def __init__(self, options: ReadOptions, multiplex: bool) -> None:
        self.finished = False
        """A record behind `until` was met."""
        self._options = options
        self._streams = {
            s for s, wanted in (("stdout", options.stdout), ("stderr", options.stderr)) if wanted
        }
        self._multiplex = multiplex
        self._since = "" if options.since is None else rfc3339_fixed(options.since)
        self._until = "" if options.until is None else rfc3339_fixed(options.until)
        plain = len(self._streams) == 2 and not (
            self._since or self._until or options.timestamps or options.details
        )
        self.render: Callable[[Sequence[Record]], bytes] = self._render_plain if plain else self._render

    def _render_plain(self, records: Sequence[Record]) -> bytes:
        parts: list[bytes] = []
        append = parts.append
        for record in records:
            line = record.log.encode("utf-8", "surrogateescape")
            if self._multiplex:
                append(_header(record.stream, len(line)))
            append(line)
        return b"".join(parts)

    def _render(self, records: Sequence[Record]) -> bytes:
        parts = []
        for record in records:
            moment = _fixed(record.time)
            # Times of nine digits in UTC sort as text.
            if self._since and moment < self._since:
                continue
            if self._until and moment > self._until:
                self.finished = True
                break
            if record.stream not in self._streams:
                continue
            line = record.log.encode("utf-8", "surrogateescape")
            if self._options.details:
                line = _details(record.attrs or {}) + b" " + line
            if self._options.timestamps:
                line = moment.encode() + b" " + line
            if self._multiplex:
                parts.append(_header(record.stream, len(line)))
            parts.append(line)
        return b"".join(parts)


def _header(stream: str, size: int) -> bytes:
    headers = _HEADERS["stderr" if stream == "stderr" else "stdout"]
    return headers[size] if size < 1024 else headers[0][:4] + size.to_bytes(4, "big")


def _fixed(moment: str) -> str:
    """RFC3339Nano in UTC with all its nine digits."""
    if len(moment) == 30:
        return moment
    second, _, fraction = moment.rstrip("Z").partition(".")
    return f"{second}.{fraction:0<9}Z"


def _details(attributes: dict[str, str]) -> bytes:
    pairs = (f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(attributes.items()))
    return ",".join(pairs).encode()
