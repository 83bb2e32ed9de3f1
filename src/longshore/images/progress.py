"""Progress messages as Docker streams them to its client."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, BinaryIO, cast

ProgressCallback = Callable[[dict[str, Any]], None]
"""Takes one message. May be called from any thread."""

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_INTERVAL = 0.1
"""Seconds between two messages about the same thing."""


class Progress:
    """Reports how much of one thing was read."""

    def __init__(self, emit: ProgressCallback, id: str, action: str, total: int) -> None:
        """`total` is in bytes; 0 if unknown."""
        self._emit = emit
        self._id = id
        self._action = action
        self._total = total
        self._current = 0
        self._next = 0.0

    def watch(self, stream: Any) -> BinaryIO:
        """The same stream, reporting what is read from it."""
        return cast(BinaryIO, _Watched(stream, self))

    def advance(self, count: int) -> None:
        """So many bytes more."""
        self._current += count
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _INTERVAL
            self._report()

    def done(self) -> None:
        """All was read."""
        self._current = self._total or self._current
        self._report()

    def _report(self) -> None:
        detail = {"current": self._current, "total": self._total}
        bar = progress_bar(self._current, self._total)
        self._emit({"status": self._action, "progressDetail": detail, "progress": bar, "id": self._id})


class _Watched:
    def __init__(self, stream: Any, progress: Progress) -> None:
        self._stream = stream
        self._progress = progress

    def read(self, count: int = -1) -> bytes:
        data: bytes = self._stream.read(count)
        self._progress.advance(len(data))
        return data


def progress_bar(current: int, total: int) -> str:
    """As jsonmessage.JSONProgress draws it on a wide terminal."""
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f"{human_size(current):>8}"
    half = min(int(current / total * 100) // 2, 50)
    return f"[{'=' * half}>{' ' * (50 - half)}] {human_size(current):>8}/{human_size(total)}"


def human_size(size: float) -> str:
    """Four significant digits, powers of a thousand, as go-units' HumanSize."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.4g}{_UNITS[unit]}"
