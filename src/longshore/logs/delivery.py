"""Drivers that send a log elsewhere: a queue, a thread that empties it, and a cache to read back from.

The pump hands blocks over and goes on. A peer that is slow or gone keeps only this thread waiting; once the
queue is full the container's output is no longer read (blocking mode) or new blocks are dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from longshore.logs.lines import PIECE
from longshore.logs.local import LocalDriver
from longshore.logs.logfile import LogFile
from longshore.logs.messages import Message, MessageCutter

_log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 5.0
"""Seconds that what is queued may take to be sent once a run has ended; then it is given up."""
DEFAULT_CAPACITY = 1_000_000
_BATCH = 1000
_Block = tuple[str, bytes, int, bool]


class Patience:
    """How long a sender may go on trying. Ends some time after the driver was closed."""

    def __init__(self) -> None:
        self._closing = threading.Event()
        self._deadline = float("inf")

    def end(self, seconds: float) -> None:
        """From now on there are so many seconds left."""
        self._deadline = time.monotonic() + seconds
        self._closing.set()

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._deadline - time.monotonic())

    @property
    def closing(self) -> bool:
        """Whether the run has ended."""
        return self._closing.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait before trying again, less if the run ends. False if there is no time left to try."""
        if self.closing:
            time.sleep(min(seconds, self.left))
        else:
            self._closing.wait(seconds)
        return time.monotonic() < self._deadline


class Sender:
    """The protocol of a driver. All but `abort` is called by one thread at a time."""

    piece = PIECE
    """Bytes of a line from which on it is sent in pieces of that size."""
    limit: QueueLimit | None = None
    """How much may wait to be sent, if it is not the default."""

    def due(self) -> float | None:
        """Seconds after which `send` is to be called though nothing is new; None is never."""
        return None

    def connect(self) -> None:
        """Reach the peer, before the container starts. Raises OSError, worded as Go words it."""
        raise NotImplementedError

    def send(self, messages: Sequence[Message], patience: Patience) -> None:
        """Send in order, reconnecting where the protocol allows for it. OSError: they, or some, are lost."""
        raise NotImplementedError

    def finish(self, patience: Patience) -> None:
        """Send what was held back. Raises OSError."""

    def abort(self) -> None:
        """Break off whatever the sender is waiting for, and close; called by another thread."""


class QueueLimit:
    """How much may wait: `capacity` bytes, or messages if `count_messages`; `lossy` drops the rest."""

    def __init__(self, capacity: int, *, lossy: bool = False, count_messages: bool = False) -> None:
        self.capacity = capacity
        self.lossy = lossy
        self._count = count_messages

    def measure(self, block: bytes) -> int:
        """What `block` takes."""
        return (block.count(b"\n") or 1) if self._count else len(block)


class RemoteDriver:
    """Keeps a local copy of what is written, if there is a cache, and has `sender` send it."""

    def __init__(self, name: str, sender: Sender, limit: QueueLimit, cache: LocalDriver | None) -> None:
        self.name = name
        self.piece = sender.piece
        self.synchronous = cache is not None
        self.file: LogFile | None = cache.file if cache else None
        self.on_room: Callable[[], None] | None = None
        self.dropped = 0
        """Blocks that a full queue did not take."""
        self._sender = sender
        self._limit = limit
        self._cache = cache
        self._cutter = MessageCutter()
        self._queue: deque[_Block] = deque()
        self._size = 0
        self._closed = False
        self._failing = False
        self._patience = Patience()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"longshore-log-{name}", daemon=True)
        self._thread.start()

    def log(self, stream: str, block: bytes, time_ns: int, partial: bool) -> None:
        """See LogDriver. Never waits for the peer."""
        with self._changed:
            taken = self._limit.measure(block)
            if self._limit.lossy and self._queue and self._size + taken > self._limit.capacity:
                self.dropped += 1  # As dockerd's ring: the new message goes, not an old one.
            else:
                self._queue.append((stream, block, time_ns, partial))
                self._size += taken
                self._changed.notify()
        if self._cache is not None:
            self._cache.log(stream, block, time_ns, partial)

    def is_full(self) -> bool:
        """Whether the container has to wait (see driver.Queueing)."""
        return not self._limit.lossy and self._size >= self._limit.capacity

    def close(self) -> None:
        """See LogDriver. What the peer does not take within CLOSE_TIMEOUT is lost."""
        if self._cache is not None:
            self._cache.close()
        with self._changed:
            self._closed = True
            self._patience.end(CLOSE_TIMEOUT)
            self._changed.notify()
        self._thread.join(CLOSE_TIMEOUT)
        if self._thread.is_alive():
            _log.warning("Logger %s didn't exit in time: logs may be truncated", self.name)
        self._sender.abort()

    def _run(self) -> None:
        while (messages := self._next()) is not None:
            self._send(messages)
        try:
            self._sender.finish(self._patience)
        except OSError as exc:
            _log.warning("Failed to log to %s: %s", self.name, exc)

    def _next(self) -> list[Message] | None:
        """The next messages, none of them if it was the interval that passed; None at the end."""
        with self._changed:
            if not self._queue and not self._closed:
                self._changed.wait_for(lambda: bool(self._queue) or self._closed, self._sender.due())
            if not self._queue:
                return None if self._closed else []
            was_full = self.is_full()
            messages: list[Message] = []
            while self._queue and len(messages) < _BATCH:
                block = self._queue.popleft()
                self._size -= self._limit.measure(block[1])
                messages += self._cutter.cut(*block)
        if was_full and self.on_room is not None and not self.is_full():
            self.on_room()
        return messages

    def _send(self, messages: Sequence[Message]) -> None:
        try:
            self._sender.send(messages, self._patience)
            self._failing = False
        except Exception as exc:
            if not self._failing:  # Told once, not for every message until the peer is back.
                _log.warning("Failed to log to %s: %s", self.name, exc)
            self._failing = True
