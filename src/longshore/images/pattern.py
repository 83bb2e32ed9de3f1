"""Patterns of names, as Go's path.Match has them: `*` and `?` stop at slashes, `[^a-z]`, `\\` escapes."""

from __future__ import annotations

import re

from longshore.errors import System


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The pattern as an expression to match whole texts with. Raises System for one that is none.

    As Go does, what lies between two stars is taken where it is found first, and not looked for again: else
    a few stars would take years.
    """
    pieces, parts = [], list[str]()
    rest = pattern
    while rest:
        character, rest = rest[0], rest[1:]
        if character == "*":
            pieces.append("".join(parts))
            parts.clear()
        elif character == "?":
            parts.append("[^/]")
        elif character == "[":
            part, rest = _class(rest)
            parts.append(part)
        elif character == "\\":
            character, rest = _escaped("\\" + rest)
            parts.append(re.escape(character))
        else:
            parts.append(re.escape(character))
    if not pieces:
        return re.compile("".join(parts), re.DOTALL)
    between = [f"(?>[^/]*?{piece})" for piece in pieces[1:] if piece]
    return re.compile("".join((pieces[0], *between, "[^/]*", *parts)), re.DOTALL)


def _class(rest: str) -> tuple[str, str]:
    """What follows a `[`, as an expression, and what follows its `]`."""
    negated = rest.startswith("^")
    rest = rest[negated:]
    ranges: list[str] = []
    while not (ranges and rest.startswith("]")):
        low, rest = _escaped(rest)
        high = low
        if rest.startswith("-"):
            high, rest = _escaped(rest[1:])
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")  # Matches nothing, as in Go.
        if not rest:
            raise System("syntax error in pattern")
    inside = "".join(ranges)
    if not inside:
        return ("." if negated else "(?!)"), rest[1:]
    return f"[{'^' if negated else ''}{inside}]", rest[1:]


def _escaped(rest: str) -> tuple[str, str]:
    """The next character of a class, or one that is escaped, and what follows it."""
    if rest.startswith("\\"):
        rest = rest[1:]
    elif rest[:1] in ("", "-", "]"):
        raise System("syntax error in pattern")
    if not rest:
        raise System("syntax error in pattern")
    return rest[0], rest[1:]
