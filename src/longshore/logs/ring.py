"""Non-blocking delivery: a bounded buffer before a driver, so that a slow log never slows the container."""

from __future__ import annotations

import logging
import threading
from collections import deque

from longshore.logs.driver import LogDriver
from longshore.logs.logfile import LogFile

_log = logging.getLogger(__name__)


class RingDriver:
    """Hands blocks to `inner` on a thread; with `capacity` bytes waiting new ones are dropped."""

    def __init__(self, inner: LogDriver, capacity: int) -> None:
        self.name = inner.name
        self.synchronous = False
        self.piece = inner.piece
        self.file: LogFile | None = inner.file
        self.dropped = 0
        self._inner = inner
        self._capacity = capacity
        self._size = 0
        self._closed = False
        self._blocks: deque[tuple[str, bytes, int, bool]] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._drain, name="longshore-log-ring", daemon=True)
        self._thread.start()

    def log(self, stream: str, block: bytes, time_ns: int, partial: bool) -> None:
        """Take the block; never blocks."""
        for piece in _pieces(block, max(1, self._capacity // 4)):
            with self._changed:
                # One block is kept whatever its size, or a small buffer would keep none.
                if self._blocks and self._size + len(piece) > self._capacity:
                    self.dropped += len(piece)
                    continue
                self._blocks.append((stream, piece, time_ns, partial))
                self._size += len(piece)
                self._changed.notify()

    def close(self) -> None:
        """Wait until what is in the buffer is kept, then close the driver."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drain(self) -> None:
        while True:
            with self._changed:
                while not self._blocks and not self._closed:
                    self._changed.wait()
                if not self._blocks:
                    break
                item = self._blocks.popleft()
                self._size -= len(item[1])
            try:
                self._inner.log(*item)
            except Exception as exc:
                _log.warning("Failed to log a message: %s", exc)
        self._inner.close()


def _pieces(block: bytes, size: int) -> list[bytes]:
    """Cut at line ends into pieces of about `size`, so that dropping one does not drop the whole block."""
    pieces = []
    while len(block) > size and (end := block.find(b"\n", size) + 1):
        pieces.append(block[:end])
        block = block[end:]
    return [*pieces, block] if block else pieces
