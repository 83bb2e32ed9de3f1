"""A lock for each name: what takes long for one keeps no other waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class NameLocks:
    """Locks that exist while somebody holds them, or waits for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, tuple[threading.RLock, int]] = {}

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Be the only one who does something with what has this name; a thread may hold it twice."""
        with self._lock:
            lock, holders = self._locks.get(name) or (threading.RLock(), 0)
            self._locks[name] = lock, holders + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, holders = self._locks.pop(name)
                if holders > 1:
                    self._locks[name] = lock, holders - 1
