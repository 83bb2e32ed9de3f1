"""Output that was read and may not be in its log yet, kept where a killed daemon leaves it.

A pipe gives each byte once, and who dies with it in his hands has lost it. So the kernel moves the bytes
from the pipe into a file, the spool, from which they go into the log; a ledger notes up to where they have,
and how long the log was then. Both outlive the daemon, not the machine. Whoever comes next counts the records
that the log has beyond what the ledger says, and goes on behind them: nothing is lost or there twice.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import struct
from pathlib import Path

import msgspec

from longshore.linux.files import punch_hole
from longshore.logs.lines import LineSplitter
from longshore.logs.logfile import LogFile, numbered
from longshore.logs.records import Format

STREAMS = ("stdout", "stderr")
_STATE = struct.Struct("<6Q")
# Two states, and behind them which is the valid one: 0 is none yet, else 1 or 2.
_SLOTS, _VALID, _SIZE = (0, 64), 128, 136
_GIVE_BACK = 1 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Spool:
    """What one stream has brought. Offsets only grow; what is done with is a hole in the file."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._fd = os.open(path, _FLAGS, 0o600)
        self.end = os.fstat(self._fd).st_size
        self.done = 0
        """What is before it is in the log."""
        self._given_back = 0

    def take(self, pipe: int, most: int) -> bytes:
        """Move what `pipe` holds into the spool; b"" at the pipe's end.

        Raises BlockingIOError if it holds nothing, OSError if the spool cannot take it.
        """
        moved = os.splice(pipe, self._fd, most, offset_dst=self.end)
        chunk = os.pread(self._fd, moved, self.end)
        self.end += moved
        return chunk

    def rest(self) -> bytes:
        """What is not done."""
        return os.pread(self._fd, self.end - self.done, self.done)

    def give_back(self) -> None:
        """Let go of what is done, once it is worth it."""
        if self.done - self._given_back >= _GIVE_BACK:
            punch_hole(self._fd, self._given_back, self.done - self._given_back)
            self._given_back = self.done

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._fd)


class _State(msgspec.Struct):
    """What the ledger says."""

    done: list[int]
    """Of each stream, bytes that are in the log."""
    more: list[int]
    """Of each stream, records that are in the log behind these."""
    inode: int
    """The log's file at that moment, and its size."""
    size: int


class Intake:
    """The spools and the ledger of one run. Used by the pump's thread only."""

    def __init__(self, directory: Path, log: LogFile, form: Format, piece: int, *, resume: bool) -> None:
        """Make them, or, to `resume` a run, go on with what there is. Raises OSError.

        `form` is that of the log's records, which come of lines cut into pieces of `piece` bytes.
        """
        self._directory = directory
        self._log = log
        self._current = 0
        self._more = [0, 0]
        if not resume:
            discard(directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            ledger = os.open(directory / "ledger", _FLAGS, 0o600)
            undo.callback(os.close, ledger)
            os.ftruncate(ledger, _SIZE)
            self._map = mmap.mmap(ledger, _SIZE)
            self._spools = [Spool(directory / stream) for stream in STREAMS]
        if (state := self._read()) is not None:
            self._go_on(state, form, piece)
        self._note()
        log.on_rotation = self._rotating

    def spool(self, stream: str) -> Spool:
        """Where that stream's bytes go."""
        return self._spools[STREAMS.index(stream)]

    def begin(self, stream: str) -> None:
        """What goes into the log from now on is of that stream."""
        self._current = STREAMS.index(stream)

    def logged(self, size: int) -> None:
        """So many bytes more of it are in the log, or have been given up."""
        spool = self._spools[self._current]
        spool.done += size
        self._more[self._current] = 0
        self._note()
        spool.give_back()

    def close(self, *, remove: bool) -> None:
        """The run has come to its end; without `remove`, another daemon will go on with it."""
        self._log.on_rotation = None
        self._map.close()
        for spool in self._spools:
            spool.close()
        if remove:
            discard(self._directory)

    def _rotating(self, records: int) -> None:
        self._more[self._current] = records
        self._note()

    def _note(self) -> None:
        """Write the state where the valid one is not, then let that be the valid one: never half of it."""
        inode, size = self._log.position
        slot = 1 if self._map[_VALID] != 1 else 2
        state = _STATE.pack(*(spool.done for spool in self._spools), *self._more, inode, size)
        self._map[_SLOTS[slot - 1] : _SLOTS[slot - 1] + _STATE.size] = state
        self._map[_VALID] = slot

    def _read(self) -> _State | None:
        slot = self._map[_VALID]
        if slot not in (1, 2):
            return None
        out, err, more_out, more_err, inode, size = _STATE.unpack_from(self._map, _SLOTS[slot - 1])
        return _State([out, err], [more_out, more_err], inode, size)

    def _go_on(self, state: _State, form: Format, piece: int) -> None:
        written = _written_since(state, self._log, form)
        for number, spool in enumerate(self._spools):
            spool.done = min(state.done[number], spool.end)
            records = state.more[number] + written[number]
            spool.done += _length(spool.rest(), records, piece)


def discard(directory: Path) -> None:
    """Remove what is there of a run; nothing may be."""
    shutil.rmtree(directory, ignore_errors=True)


def _written_since(state: _State, log: LogFile, form: Format) -> list[int]:
    """Records of each stream that are in the log behind the state. One that is torn is taken out of it."""
    found = [0, 0]
    files = [path for path in (numbered(log.path, 1), log.path) if path.exists()]
    for index, path in enumerate(files):
        if path.stat().st_ino != state.inode:
            continue
        start = state.size
        for each in files[index:]:
            with each.open("rb") as file:
                file.seek(start)
                data = file.read()
            sound = form.sound(data)
            for record in form.decode(data[:sound]):
                found[STREAMS.index(record.stream)] += 1
            if each == log.path and sound < len(data):
                log.cut_back(start + sound)
            start = 0
        break
    return found


def _length(data: bytes, records: int, piece: int) -> int:
    """The bytes at the beginning of `data` that make so many records."""
    splitter, length = LineSplitter(piece), 0
    for blocks in (splitter.feed(data), splitter.flush()):
        for block, partial in blocks:
            if not records:
                return length
            taken = ([block] if partial else _lines(block))[:records]
            length += sum(map(len, taken))
            records -= len(taken)
    return length


def _lines(block: bytes) -> list[bytes]:
    # Not splitlines: to a log only a newline ends a line.
    return [line + b"\n" for line in block.split(b"\n")[:-1]]
