"""What is told of a solve: its vertexes, how far each is, and what it prints.

Whoever follows a solve gets all of it from the beginning, whenever they come. So that this stays small, what
one vertex prints is cut off at BuildKit's limit, and progress is noted a few times a second only.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from longshore.buildkit.proto import control_pb2 as pb

STDOUT, STDERR = 1, 2

_LOG_LIMIT = 2 << 20
"""Bytes that one vertex may print; BuildKit's default."""
_LEAST = 32
"""Bytes that each piece of it counts for, however small it is."""
_TOGETHER = 1 << 20
"""Bytes of one message, or of its last event beyond that; a client's gRPC refuses messages of 4 MB."""
_STATUS_INTERVAL = 0.15
"""Seconds between two notes of one transfer's progress."""

Event = pb.Vertex | pb.VertexStatus | pb.VertexLog | pb.VertexWarning


class SolveProgress:
    """The progress of one solve. Owned by the event loop's thread."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._followers: set[asyncio.Event] = set()
        self._ended = False

    def vertex(self, name: str, inputs: Sequence[str] = ()) -> Vertex:
        """Begin a vertex. `inputs` are digests of those that it builds on."""
        return Vertex(self, clean(name), inputs)

    def warn(self, text: str) -> None:
        """Tell of something that is not as it should be, by the first vertex, which reads the Dockerfile."""
        first = next((event.digest for event in self._events if isinstance(event, pb.Vertex)), "")
        self.add(pb.VertexWarning(vertex=first, level=1, short=clean(text).encode()))

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._wake()

    def add(self, event: Event) -> None:
        """Tell one thing more."""
        self._events.append(event)
        self._wake()

    async def follow(self) -> AsyncIterator[pb.StatusResponse]:
        """Everything from the beginning to the end, several events in one message."""
        seen = 0
        news = asyncio.Event()
        self._followers.add(news)
        try:
            while True:
                news.clear()
                if seen < len(self._events):
                    message, seen = self._message(seen)
                    yield message
                elif self._ended:
                    return
                else:
                    await news.wait()
        finally:
            self._followers.discard(news)

    def _message(self, seen: int) -> tuple[pb.StatusResponse, int]:
        message = pb.StatusResponse()
        size = 0
        while seen < len(self._events) and size < _TOGETHER:
            event = self._events[seen]
            seen += 1
            size += event.ByteSize()
            if isinstance(event, pb.Vertex):
                message.vertexes.append(event)
            elif isinstance(event, pb.VertexStatus):
                message.statuses.append(event)
            elif isinstance(event, pb.VertexLog):
                message.logs.append(event)
            else:
                message.warnings.append(event)
        return message, seen

    def _wake(self) -> None:
        for news in self._followers:
            news.set()


class Vertex:
    """One line of a build's progress, with what hangs below it. It runs from when it is made."""

    def __init__(self, progress: SolveProgress, name: str, inputs: Sequence[str]) -> None:
        self._progress = progress
        self.name = name
        self.digest = f"sha256:{hashlib.sha256(secrets.token_bytes(16)).hexdigest()}"
        self._inputs = list(inputs)
        self._started = now()
        self._completed = False
        self._printed = 0
        self._noted: dict[str, float] = {}
        self._transfers: dict[str, Timestamp] = {}
        self._tell()

    def cached(self) -> None:
        """It need not be done: what it makes was there."""
        self._end(cached=True)

    def complete(self) -> None:
        """It is done."""
        self._end()

    def fail(self, why: str) -> None:
        """It came to nothing."""
        self._end(error=clean(why))

    def log(self, data: bytes, stream: int = STDOUT) -> None:
        """It printed something."""
        if self._printed >= _LOG_LIMIT:
            return
        self._printed += max(len(data), _LEAST)
        if self._printed >= _LOG_LIMIT:
            data = data[:_LOG_LIMIT] + b"\n[output clipped, log limit 2MiB reached]\n"
        for start in range(0, len(data), _TOGETHER):
            part = data[start : start + _TOGETHER]
            self._progress.add(pb.VertexLog(vertex=self.digest, timestamp=now(), stream=stream, msg=part))

    def status(self, id: str, current: int = 0, total: int = 0, *, done: bool = False) -> None:
        """How far a part of it is, in bytes."""
        moment = time.monotonic()
        if not done and moment - self._noted.get(id, 0) < _STATUS_INTERVAL:
            return
        self._noted[id] = moment
        id = clean(id)
        started = self._transfers.setdefault(id, now())
        event = pb.VertexStatus(
            ID=id, vertex=self.digest, name=id, current=current, total=total, timestamp=now(), started=started
        )
        if done:
            event.completed.CopyFrom(now())
        self._progress.add(event)

    def _end(self, *, cached: bool = False, error: str = "") -> None:
        if not self._completed:
            self._completed = True
            self._tell(cached=cached, error=error)

    def _tell(self, *, cached: bool = False, error: str = "") -> None:
        vertex = pb.Vertex(
            digest=self.digest,
            inputs=self._inputs,
            name=self.name,
            cached=cached,
            started=self._started,
            error=error,
        )
        if self._completed:
            vertex.completed.CopyFrom(now())
        self._progress.add(vertex)


def now() -> Timestamp:
    """The present moment."""
    nanoseconds = time.time_ns()
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def clean(text: str) -> str:
    """Text that a message may hold: bytes of no encoding become question marks."""
    return text.encode("utf-8", "replace").decode()
