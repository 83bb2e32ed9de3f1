"""A trace as a waterfall: a line for each step, nested as they ran, its bar where it was in time."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime

from longshore.tracing import Span, Trace

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_RED, _DIM, _BOLD, _RESET = "\x1b[31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"
_MINIMUM_BAR = 10
_AMOUNT = 15
"""Columns of a duration, the blanks around it, and the mark of a failure."""


def draw(trace: Trace, width: int = 100, colour: bool = False) -> list[str]:
    """The lines of `trace`, none wider than `width` columns (50 at least).

    Steps beside each other in time ran beside each other: their bars overlap.
    """
    width = max(width, 50)
    steps = list(_nested(trace.spans))
    if not steps:
        return [f"{trace.operation} {trace.subject}: no steps were recorded"]
    whole = max(1, *((span.start + (span.duration or 0)) for span, _ in steps))
    names = [f"{'  ' * depth}{span.name}" for span, depth in steps]
    column = min(max(map(len, names)), max(16, width - _MINIMUM_BAR - _AMOUNT))
    bar = max(_MINIMUM_BAR, width - column - _AMOUNT)
    lines = [_heading(trace, whole, width, colour)]
    for (span, depth), name in zip(steps, names, strict=True):
        lines.append(_line(span, name, column, bar, whole, colour))
        if span.error and not _repeats_a_child(span, trace.spans):
            lines += [_paint(line, _RED, colour) for line in _error(span.error, depth, width)]
    return lines


def _heading(trace: Trace, whole: int, width: int, colour: bool) -> str:
    began = datetime.fromtimestamp(trace.began / 1e9).strftime("%H:%M:%S.%f")[:-3]
    text = f"{trace.operation} {trace.subject[:12]}  {_time(whole)}  at {began}"
    return _paint(text[:width], _BOLD + (_RED if trace.error else ""), colour)


def _line(span: Span, name: str, column: int, bar: int, whole: int, colour: bool) -> str:
    if len(name) > column:
        name = name[: column - 1] + "…"
    drawn = _bar(span.start, span.start + (span.duration or 0), whole, bar)
    text = f"{name:{column}} {drawn} {_time(span.duration):>11}"
    if span.error:
        return _paint(text if colour else f"{text} !", _RED, colour)
    return text.replace("·", _paint("·", _DIM, colour)) if colour else text


def _bar(start: int, end: int, whole: int, width: int) -> str:
    """A bar from `start` to `end` of `whole`, in `width` cells; its end is exact to an eighth of a cell."""
    first = start * width * 8 // whole
    last = max(first + 1, end * width * 8 // whole)
    first = min(first, width * 8 - 1)
    left, full_from = first // 8, -(-first // 8)
    if left == last // 8 or (first % 8 and last <= full_from * 8):  # within one cell
        return f"{'':{left}}{_EIGHTHS[max(1, last - first)]}{'':{width - left - 1}}"
    head = "▐" if first % 8 else ""
    tail = _EIGHTHS[last % 8] if last % 8 else ""
    body = "█" * (last // 8 - full_from)
    return f"{'':{left}}{head}{body}{tail}".ljust(width)[:width]


def _nested(spans: list[Span]) -> Iterator[tuple[Span, int]]:
    """Spans with their depth: children below their parent, in the order in which they began."""
    children: dict[int | None, list[Span]] = {}
    for span in spans:
        children.setdefault(span.parent, []).append(span)

    def below(parent: int | None, depth: int) -> Iterator[tuple[Span, int]]:
        for span in sorted(children.get(parent, []), key=lambda span: (span.start, span.id)):
            yield span, depth
            yield from below(span.id, depth + 1)

    yield from below(None, 0)


def _repeats_a_child(span: Span, spans: list[Span]) -> bool:
    """Whether the error only passed through: it is shown where it happened."""
    return any(other.parent == span.id and other.error for other in spans)


def _time(nanoseconds: int | None) -> str:
    if nanoseconds is None:
        return "unfinished"
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1000:.0f} µs"
    if nanoseconds < 1_000_000_000:
        return f"{nanoseconds / 1e6:.1f} ms"
    return f"{nanoseconds / 1e9:.2f} s"


def _error(text: str, depth: int, width: int) -> list[str]:
    """Errors are the daemon's words about a user's input: no control character reaches the terminal."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    indent = "  " * min(depth + 1, 10)
    return textwrap.wrap(printable, width, initial_indent=f"{indent}└ ", subsequent_indent=f"{indent}  ")


def _paint(text: str, code: str, colour: bool) -> str:
    return f"{code}{text}{_RESET}" if colour and code else text
