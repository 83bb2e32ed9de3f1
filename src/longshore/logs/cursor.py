"""Reading a log's files in the order they were written, also while they are being written and rotated."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import zlib
from contextlib import nullcontext, suppress
from io import FileIO
from pathlib import Path

from longshore.logs.logfile import LogFile, endings, numbered
from longshore.logs.records import Format

BLOCK = 1024 * 1024
_File = FileIO | gzip.GzipFile


class Cursor:
    """A place in a log. Used by one thread at a time."""

    def __init__(self, path: Path, live: LogFile | None, form: Format, tail: int, follow: bool) -> None:
        """Stand before the last `tail` records (negative is all). A missing log is an empty one.

        Without `follow`, what is written from now on is not read. Raises OSError.
        """
        self._path = path
        self._live = live
        self._format = form
        self._follow = follow
        self._rest = b""
        with live.lock if live else nullcontext():
            self._generation = live.generation if live else 0
            self._files = _open_all(path)
            # The youngest is the one still written to.
            self._limit = os.fstat(self._files[-1].fileno()).st_size if self._files else 0
        if tail >= 0:
            self._skip_to_tail(tail)

    def read(self) -> bytes:
        """Some whole records; b"" if there are none now."""
        while self._files:
            data = self._read_file()
            if not data and len(self._files) == 1:
                if not self._was_rotated():
                    return b""
                # What was appended before the rotation may not have been seen by the read above.
                data = self._read_file()
                if not data:
                    self._files.append(self._open_next())
            if not data:
                self._files.pop(0).close()
                self._rest = b""
                continue
            data = self._rest + data
            end = self._format.whole(data)
            self._rest = data[end:]
            if end:
                return data[:end]
        return b""

    def rest(self) -> bytes:
        """At the end: the beginning of a record that was never finished, or b""."""
        return self._rest

    def close(self) -> None:
        """Close all files."""
        while self._files:
            self._files.pop().close()

    def _read_file(self) -> bytes:
        file = self._files[0]
        size = BLOCK
        if len(self._files) == 1 and isinstance(file, FileIO):
            position = file.tell()
            if os.fstat(file.fileno()).st_size < position:
                file.seek(0)  # truncated by somebody else: what it holds now is new
                self._rest = b""
            elif not self._follow:
                size = min(size, self._limit - position)
        try:
            return file.read(size) if size > 0 else b""
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return b""

    def _was_rotated(self) -> bool:
        return self._follow and self._live is not None and self._live.generation > self._generation

    def _open_next(self) -> _File:
        live = self._live
        assert live is not None
        with live.lock:
            while True:
                self._generation += 1
                file = _open_number(self._path, live.generation - self._generation)
                if file is not None:
                    return file
                if self._generation >= live.generation:
                    raise FileNotFoundError(f"{self._path} is gone")

    def _skip_to_tail(self, count: int) -> None:
        for index in range(len(self._files) - 1, -1, -1):
            file = self._files[index]
            if not isinstance(file, FileIO):
                file = self._files[index] = _unpacked(file)
            offset, found = self._format.tail(file.fileno(), count)
            file.seek(offset)
            count -= found
            if not count:
                for older in self._files[:index]:
                    older.close()
                del self._files[:index]
                return


def _open_all(path: Path) -> list[_File]:
    """Oldest first. The numbers have no gaps, but for what was removed by hand."""
    try:
        others = [ending[1:].removesuffix(".gz") for ending in endings(path)]
    except FileNotFoundError:
        return []
    numbers = sorted({int(other) for other in others if other.isdecimal()}, reverse=True)
    files = [_open_number(path, number) for number in [*numbers, 0]]
    return [file for file in files if file is not None]


def _open_number(path: Path, number: int) -> _File | None:
    if number:
        packed = _open(numbered(path, number, ".gz"))
        if packed is not None:
            return gzip.GzipFile(fileobj=packed, mode="rb")
    return _open(numbered(path, number))


def _open(path: Path) -> FileIO | None:
    try:
        return FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        return None


def _unpacked(packed: gzip.GzipFile) -> FileIO:
    # Searching backwards needs a file one can seek in; it has no name and goes with its descriptor.
    with packed, tempfile.TemporaryFile() as plain:
        with suppress(EOFError, gzip.BadGzipFile, zlib.error):
            shutil.copyfileobj(packed, plain, BLOCK)
        plain.flush()
        plain.seek(0)
        return FileIO(os.dup(plain.fileno()), "rb")
