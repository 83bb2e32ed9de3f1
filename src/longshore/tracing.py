"""Spans: what a start spent its time on.

A trace is a tree of spans, kept in memory for the most recent operations. Spans nest through a context
variable, so steps that run beside each other in tasks of one start find their parent by themselves. The
cost of a span is two clock readings and one append; nothing is sampled away.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

_current: ContextVar[tuple[Trace, Span] | None] = ContextVar("longshore_span", default=None)


class Span(msgspec.Struct):
    """One step. Times are nanoseconds: `start` since the trace began, `duration` None while it runs."""

    id: int
    parent: int | None
    name: str
    start: int
    duration: int | None = None
    error: str = ""
    attributes: dict[str, str] = {}


class Trace(msgspec.Struct):
    """One operation on one object, e.g. `start` of a container."""

    operation: str
    subject: str
    began: int
    """Wall clock, nanoseconds since the epoch."""
    spans: list[Span] = []
    error: str = ""
    clock: int = 0
    """Monotonic nanoseconds at the beginning; meaningless outside this process."""


class TraceStore:
    """The latest traces of each subject, bounded in number. Owned by the event loop's thread."""

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._traces: OrderedDict[str, Trace] = OrderedDict()

    @contextmanager
    def record(self, operation: str, subject: str) -> Iterator[Trace]:
        """Record what happens inside as the subject's latest trace, also when it fails."""
        trace = Trace(operation, subject, time.time_ns(), clock=time.monotonic_ns())
        root = Span(0, None, operation, 0)
        trace.spans.append(root)
        self._traces[subject] = trace
        self._traces.move_to_end(subject)
        while len(self._traces) > self._capacity:
            self._traces.popitem(last=False)
        token = _current.set((trace, root))
        try:
            yield trace
        except BaseException as exc:
            trace.error = root.error = str(exc) or type(exc).__name__
            raise
        finally:
            root.duration = time.monotonic_ns() - trace.clock
            _current.reset(token)

    def latest(self, subject: str | None = None) -> Trace | None:
        """The latest trace of `subject`, or of anything; None if there is none (any more)."""
        if subject is not None:
            return self._traces.get(subject)
        return next(reversed(self._traces.values()), None)

    def all(self) -> list[Trace]:
        """Every trace kept, oldest first."""
        return list(self._traces.values())

    def forget(self, subject: str) -> None:
        """Drop the subject's trace, if any."""
        self._traces.pop(subject, None)


@contextmanager
def span(name: str, **attributes: str) -> Iterator[Span | None]:
    """Time a step of the current trace; outside any trace it costs nothing and yields None.

    Safe in tasks and in `asyncio.to_thread` (both copy the context).
    """
    current = _current.get()
    if current is None:
        yield None
        return
    trace, parent = current
    step = Span(len(trace.spans), parent.id, name, time.monotonic_ns() - trace.clock, attributes=attributes)
    trace.spans.append(step)
    token = _current.set((trace, step))
    try:
        yield step
    except BaseException as exc:
        step.error = str(exc) or type(exc).__name__
        raise
    finally:
        step.duration = time.monotonic_ns() - trace.clock - step.start
        _current.reset(token)
