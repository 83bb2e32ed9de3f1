"""A log on disk: one file being written, and older ones beside it, numbered and perhaps compressed.

Files are named as dockerd names them: `path`, then `path.1` (the youngest of the old) up to
`path.<max_files - 1>`, with `.gz` behind those that are compressed.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from longshore.logs.options import Rotation

_MODE = 0o640


class LogFile:
    """The writer's side. One thread appends; readers on other threads open what is there and are notified.

    `generation` counts rotations: a reader that has opened generation g finds it, after n rotations, under
    number n.
    """

    def __init__(
        self,
        path: Path,
        rotation: Rotation,
        cut: Callable[[bytes, int], tuple[int, int]],
        repair: Callable[[int, int], int],
    ) -> None:
        """Open for appending; what is there stays. Raises OSError.

        `cut(data, minimum)` gives the end of the first record that ends at or behind `minimum`, so that no
        record is ever spread over two files, and how many records that are. `repair(fd, size)` mends an end
        torn by a crash amid a write, so that the next record can be told from it, and gives the new size.
        """
        self.path = path
        self.generation = 0
        self.closed = False
        self.lock = threading.Lock()
        self.on_rotation: Callable[[int], None] | None = None
        """Called before and behind each rotation amid an `append`, with the records of it written so far."""
        self._rotation = rotation
        self._cut = cut
        self._repair = repair
        self._uncompressed: deque[int] = deque()
        self._compressing = False
        self._watchers: tuple[Callable[[], None], ...] = ()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        for ending in endings(path):
            if ending.endswith(".tmp"):  # a compression that was cut off
                path.with_name(path.name + ending).unlink(missing_ok=True)
        self._fd, self._size = self._open()
        if rotation.compress:
            self._compress_leftovers()

    def append(self, data: bytes) -> None:
        """Write whole records, rotating between them where it is time. Raises OSError."""
        limit = self._rotation.max_size
        if limit is None:
            self._write(data)
        else:
            written = 0
            while data:
                # As dockerd: a file takes records until it is at its limit, so the last one may go over it.
                if self._size >= limit:
                    self._tell_of_rotation(written)
                    self._rotate()
                    self._tell_of_rotation(written)
                end, records = self._cut(data, limit - self._size)
                self._write(data[:end])
                data, written = data[end:], written + records
        self._notify()

    @property
    def position(self) -> tuple[int, int]:
        """The file that is written now, by its inode, and its size."""
        return self._inode, self._size

    def cut_back(self, size: int) -> None:
        """Cut off what a crash has torn. Raises OSError."""
        os.ftruncate(self._fd, size)
        self._size = size

    def close(self) -> None:
        """Close the file; followers come to their end. May be called more than once."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            os.close(self._fd)
        self._notify()

    @contextlib.contextmanager
    def watch(self, notify: Callable[[], None]) -> Iterator[None]:
        """Have `notify` called, on the writer's thread, after every append and at the close."""
        with self.lock:
            self._watchers = (*self._watchers, notify)
        try:
            yield
        finally:
            with self.lock:
                self._watchers = tuple(w for w in self._watchers if w is not notify)

    def _notify(self) -> None:
        for notify in self._watchers:
            notify()

    def _tell_of_rotation(self, records: int) -> None:
        if self.on_rotation is not None:
            self.on_rotation(records)

    def _open(self) -> tuple[int, int]:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        status = os.fstat(fd)
        self._inode, size = status.st_ino, status.st_size
        return fd, self._repair(fd, size) if size else 0

    def _write(self, data: bytes) -> None:
        while data:
            written = os.write(self._fd, data)
            self._size += written
            if written == len(data):
                return
            data = data[written:]

    def _rotate(self) -> None:
        with self.lock:
            if self._rotation.max_files < 2:
                # dockerd truncates; a new file says the same and leaves readers their old one.
                self.path.unlink(missing_ok=True)
            else:
                self._shift()
            fd, self._size = self._open()
            os.close(self._fd)
            self._fd = fd
            self.generation += 1
            generation = self.generation
        if self._rotation.compress:
            self._compress_later(generation)

    def _shift(self) -> None:
        """Each file gets the next number; the last one goes. Only those that are there cost anything."""
        last = self._rotation.max_files - 1
        there = []
        for ending in endings(self.path):
            digits, _, suffix = ending[1:].partition(".")
            if digits.isdecimal() and suffix in ("", "gz"):
                there.append((int(digits), f".{suffix}" if suffix else ""))
        for number, suffix in sorted(there, reverse=True):
            path = numbered(self.path, number, suffix)
            with contextlib.suppress(FileNotFoundError):
                if number >= last:
                    path.unlink()
                else:
                    path.rename(numbered(self.path, number + 1, suffix))
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(numbered(self.path, 1))

    def _compress_leftovers(self) -> None:
        """What an earlier run had no time for."""
        for number in range(self._rotation.max_files - 1, 0, -1):
            if numbered(self.path, number).exists():
                self._compress_later(1 - number)

    def _compress_later(self, generation: int) -> None:
        with self.lock:
            self._uncompressed.append(generation)
            if self._compressing:
                return
            self._compressing = True
        threading.Thread(target=self._compress_all, name="longshore-log-gzip", daemon=True).start()

    def _compress_all(self) -> None:
        while True:
            with self.lock:
                if not self._uncompressed:
                    self._compressing = False
                    return
                generation = self._uncompressed.popleft()
            with contextlib.suppress(OSError):  # rotated away or removed with its container meanwhile
                self._compress(generation)

    def _compress(self, generation: int) -> None:
        """Compress the file that the rotation to `generation` made number 1, whatever its number by then."""
        temporary = self.path.with_name(f"{self.path.name}.{generation}.tmp")
        with self.lock:
            plain = open(numbered(self.path, self.generation - generation + 1), "rb")  # noqa: PTH123, SIM115
        try:
            with plain, open(temporary, "xb", opener=_private) as packed:
                with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6) as packer:
                    shutil.copyfileobj(plain, packer, 256 * 1024)
                packed.flush()
                os.fsync(packed.fileno())
            with self.lock:
                number = self.generation - generation + 1
                # Once closed, the next run's LogFile may rename files at any time, and sees to this one.
                if number < self._rotation.max_files and not self.closed:
                    temporary.rename(numbered(self.path, number, ".gz"))
                    numbered(self.path, number).unlink()
        finally:
            temporary.unlink(missing_ok=True)


def endings(path: Path) -> list[str]:
    """What stands behind the name of the log in those of its other files: `.1`, `.2.gz`, `.3.tmp` …

    Without patterns: each log has a name of its own, and Python would remember an expression for every one.
    """
    begins = f"{path.name}."
    found = (entry.name for entry in path.parent.iterdir())
    return [name[len(path.name) :] for name in found if name.startswith(begins)]


def numbered(path: Path, number: int, suffix: str = "") -> Path:
    """The file of that number; 0 is the one being written."""
    return path.with_name(f"{path.name}.{number}{suffix}") if number else path


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
