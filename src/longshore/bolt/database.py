"""A bbolt database that this engine shares with dockerd: one after the other, never both at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from pathlib import Path

from longshore.bolt.format import BrokenDatabase, Bucket
from longshore.bolt.reader import decode, newest_meta
from longshore.bolt.writer import encode
from longshore.errors import Conflict
from longshore.linux.files import TEMPORARY, sync_directory

_LARGEST = 1 << 28
"""Bytes. What dockerd keeps of thousands of networks is a thousandth of it."""


class SharedDatabase:
    """The database under `path`, locked while it is open just as bbolt locks it: a dockerd waits, and fails.

    Methods block. What cannot be read is left as it is, and is not written.
    """

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        self.path = path
        self._mode = mode
        self._file = -1
        self._transaction = 0

    def open(self) -> Bucket:
        """Lock and read it; an empty one is made if there is none.

        Raises Conflict if another daemon has it open, BrokenDatabase, OSError.
        """
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        file = self._locked()
        for leftover in self.path.parent.glob(f"{TEMPORARY}{self.path.name}-*"):
            leftover.unlink(missing_ok=True)
        if file is None:
            root = Bucket()
            self.save(root)
            return root
        try:
            if os.fstat(file).st_size > _LARGEST:
                raise BrokenDatabase("the file is too large")
            with os.fdopen(os.dup(file), "rb") as opened:
                content = opened.read()
            root = decode(content)
            self._transaction = newest_meta(content).transaction
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return root

    def _locked(self) -> int | None:
        """The file that has the name now, open and locked; None if there is none."""
        while True:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return None
            try:
                found = os.fstat(file)
                if not stat.S_ISREG(found.st_mode):
                    raise BrokenDatabase("not a regular file")
                self._lock(file)
                # Whoever had it locked may have replaced it before.
                if os.path.samestat(found, self.path.lstat()):
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def save(self, root: Bucket) -> None:
        """Replace it as a whole: after a crash there is the old one or the new. Raises OSError."""
        temporary = self.path.with_name(f"{TEMPORARY}{self.path.name}-{secrets.token_hex(4)}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(temporary, flags, self._mode)
        try:
            self._lock(file)  # Before it has the name, so that nobody finds it unlocked.
            left = memoryview(encode(root, self._transaction + 1))
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
            temporary.replace(self.path)
            sync_directory(self.path.parent)
        except BaseException:
            os.close(file)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self.close()
        self._file = file
        self._transaction += 1

    def close(self) -> None:
        """Give the lock back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _lock(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another daemon has {self.path} open") from None
