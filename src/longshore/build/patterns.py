"""Patterns of paths: Go's filepath.Match, and .dockerignore's rules (github.com/moby/patternmatcher)."""

from __future__ import annotations

import re
from functools import lru_cache
from posixpath import normpath

from longshore.errors import InvalidParameter

_ANY_DEPTH = "(?:.*/)?"
_NOTHING = "\U0010ffff"
"""Stands in a class of characters for none: not in any path."""


class IgnoreRules:
    """An ordered list of patterns; `!` takes back what earlier ones excluded."""

    def __init__(self, patterns: list[str]) -> None:
        """Raises InvalidParameter for a pattern that is none."""
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        self.takes_back = False
        """Whether something below an excluded directory may be wanted all the same."""
        for raw in patterns:
            pattern = raw.strip()
            if not pattern:
                continue
            pattern = clean(pattern)
            negated = pattern.startswith("!")
            if negated:
                pattern = pattern[1:]
                self.takes_back = True
                if not pattern:
                    raise InvalidParameter('illegal exclusion pattern: "!"')
            _check(pattern)
            self._rules.append((_ignore_regex(pattern), negated))

    def excludes(self, path: str) -> bool:
        """Whether `path`, relative and clean, or a directory it lies in, is excluded in the end."""
        parts = path.split("/")
        candidates = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
        excluded = False
        for rule, negated in self._rules:
            if negated == excluded and any(rule.fullmatch(each) for each in candidates):
                excluded = not negated
        return excluded


def read_ignore_file(content: bytes) -> list[str]:
    """The patterns of a .dockerignore file, cleaned as Docker does."""
    patterns = []
    for line in content.decode("utf-8", "surrogateescape").removeprefix("\ufeff").splitlines():
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        inverted = pattern.startswith("!")
        pattern = pattern[1:].strip() if inverted else pattern
        if pattern:
            pattern = clean(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern[1:]
        patterns.append(f"!{pattern}" if inverted else pattern)
    return patterns


def clean(path: str) -> str:
    """As Go's filepath.Clean."""
    cleaned = normpath(path)
    return "/" + cleaned.lstrip("/") if cleaned.startswith("//") else cleaned


def has_wildcards(name: str) -> bool:
    """Whether a source has any wildcard that is not escaped."""
    characters = iter(name)
    for character in characters:
        if character == "\\":
            next(characters, None)
        elif character in "*?[":
            return True
    return False


def go_match(pattern: str, name: str) -> bool:
    """Go's filepath.Match: wildcards stop at slashes. Raises InvalidParameter for a bad pattern."""
    return match_regex(pattern).fullmatch(name) is not None


@lru_cache(maxsize=256)
def match_regex(pattern: str) -> re.Pattern[str]:
    """See `go_match`."""
    out, at = "", 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif character == "[":
            piece, at = _brackets(pattern, at)
            out += piece
        elif character == "\\":
            if at == len(pattern):
                raise _bad_pattern()
            out += re.escape(pattern[at])
            at += 1
        else:
            out += re.escape(character)
    return re.compile(out, re.DOTALL)


def _brackets(pattern: str, at: int) -> tuple[str, int]:
    """A class behind its `[`: its regular expression, and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges = ""
    while True:
        if pattern.startswith("]", at) and ranges:
            return f"[{'^' if negated else ''}{ranges}]", at + 1
        low, at = _member(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _member(pattern, at + 1)
        # A range upside down matches nothing in Go, where Python refuses it.
        ranges += f"{re.escape(low)}-{re.escape(high)}" if low <= high else _NOTHING


def _member(pattern: str, at: int) -> tuple[str, int]:
    if at < len(pattern) and pattern[at] not in "-]":
        if pattern[at] == "\\":
            at += 1
        if at < len(pattern) - 1:
            return pattern[at], at + 1
    raise _bad_pattern()


def _bad_pattern() -> InvalidParameter:
    return InvalidParameter("syntax error in pattern")


def _check(pattern: str) -> None:
    match_regex(pattern)


def _ignore_regex(pattern: str) -> re.Pattern[str]:
    """A pattern of .dockerignore: as `go_match`, and `**` for any number of directories."""
    if pattern.endswith("**") and not has_wildcards(pattern[:-2]):
        return re.compile(re.escape(pattern[:-2].replace("\\", "")) + ".*", re.DOTALL)
    out, at = "", 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*" and pattern.startswith("*", at):
            at += 1
            if pattern.startswith("/", at):
                at += 1
            if at == len(pattern):
                out += ".*"
            elif not out.endswith(_ANY_DEPTH):  # Several say no more than one, but take for ever.
                out += _ANY_DEPTH
        elif character == "*":
            out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif character == "[":
            piece, at = _brackets(pattern, at)
            out += piece
        elif character == "\\" and at < len(pattern):
            out += re.escape(pattern[at])
            at += 1
        else:
            out += re.escape(character)
    if pattern.startswith("**") and not has_wildcards(pattern[2:]):
        # Docker compares the end of the path then, slash or not: `**foo` matches `afoo`.
        rest = re.escape(pattern[2:].replace("\\", ""))
        return re.compile(f".*{rest}|{rest.removeprefix('/')}", re.DOTALL)
    return re.compile(out, re.DOTALL)
