"""`${name#pattern}`, `%` and `/`: what a shell's wildcards match in a variable's value.

As in BuildKit, `*` and `?` stand for anything but the end of a line, and there are no bracket expressions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from longshore.build.automaton import Automaton, Token, Wild
from longshore.errors import InvalidParameter

LONGEST = 16 << 20
"""Characters that variables may add to a text: those made of others double with each line."""
TOO_LONG = "the text is too long once its variables are expanded"
_LINE_END = "\n"


def trim_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """`${value#pattern}`, and `##` with `longest`. Raises InvalidParameter."""
    length = _beginning(value, _tokens(pattern), longest=longest)
    return value if length is None else value[length:]


def trim_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """`${value%pattern}`, and `%%` with `longest`. Raises InvalidParameter."""
    length = _beginning(value[::-1], _tokens(pattern)[::-1], longest=longest)
    return value if length is None else value[: len(value) - length]


def replace(value: str, pattern: str, replacement: str, *, everywhere: bool) -> str:
    """`${value/pattern/replacement}`, and `//` with `everywhere`: the longest of the leftmost matches.

    Raises InvalidParameter.
    """
    tokens = _tokens(pattern)
    automaton = Automaton([tokens], _LINE_END)
    result: list[str] = []
    done, last_end, length = 0, -1, 0
    for start in _beginnings(value, tokens):
        if start < done:
            continue
        end = _last(automaton.ends(value, start)) or start
        if end == start == last_end:
            continue  # Nothing right behind a match is no match of its own.
        result += [value[done:start], replacement]
        length += len(replacement)
        if length > LONGEST:
            raise InvalidParameter(TOO_LONG)
        done = last_end = end
        if not everywhere:
            break
    return "".join([*result, value[done:]])


def _beginning(value: str, tokens: list[Token], *, longest: bool) -> int | None:
    ends = Automaton([tokens], _LINE_END).ends(value)
    return _last(ends) if longest else next(ends, None)


def _last(ends: Iterator[int]) -> int | None:
    return next(iter(deque(ends, maxlen=1)), None)


def _beginnings(value: str, tokens: list[Token]) -> list[int]:
    """Where a match begins, in order: read backwards, it is where one ends."""
    backwards = Automaton([[Wild.REST, *tokens[::-1]]], _LINE_END)
    found = [len(value) - end for end in backwards.ends(value[::-1])]
    return found[::-1]


def _tokens(pattern: str) -> list[Token]:
    tokens: list[Token] = []
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            tokens.append(Wild.STAR)
        elif character == "?":
            tokens.append(Wild.ONE)
        elif character == "\\":
            escaped = next(characters, "")
            if escaped not in ("*", "?", "\\", "}", "/"):
                raise InvalidParameter(
                    f"invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'"
                )
            tokens.append(escaped)
        else:
            tokens.append(character)
    return tokens
