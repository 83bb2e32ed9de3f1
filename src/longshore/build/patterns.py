"""Patterns of paths: Go's filepath.Match, and .dockerignore's rules (github.com/moby/patternmatcher)."""

from __future__ import annotations

from functools import lru_cache
from posixpath import normpath

from longshore.build.automaton import Automaton, CharacterClass, State, Token, Wild
from longshore.errors import InvalidParameter

_MOST_DIRECTORIES = 4096
"""Directories whose state is remembered …"""
_STATES_SIZE = 32 << 20
"""… and bytes of all of their states, which are as long as the patterns."""


class IgnoreRules:
    """An ordered list of patterns; `!` takes back what earlier ones excluded."""

    def __init__(self, patterns: list[str]) -> None:
        """Raises InvalidParameter for a pattern that is none."""
        self._negated: list[bool] = []
        self.takes_back = False
        """Whether something below an excluded directory may be wanted all the same."""
        rules: list[list[Token]] = []
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
            rules.append(_ignore_tokens(pattern))
            self._negated.append(negated)
        self._automaton = Automaton(rules)
        self._directories: dict[str, tuple[State, int]] = {"": (self._automaton.start, 0)}

    def excludes(self, path: str) -> bool:
        """Whether `path`, relative and clean, or a directory it lies in, is excluded in the end."""
        directory, _, base = path.rpartition("/")
        state, accepted = self._directories.get(directory) or self._below(directory)
        accepted |= self._automaton.accepted(self._automaton.advance(state, base))
        # A rule counts if nothing after it does: the last one that matches decides.
        last = self._automaton.last(accepted)
        return last >= 0 and not self._negated[last]

    def _below(self, directory: str) -> tuple[State, int]:
        """The state behind a directory's slash, and what matches it or a directory that it lies in."""
        automaton, accepted = self._automaton, 0
        state = automaton.start
        for name in directory.split("/"):
            state = automaton.advance(state, name)
            accepted |= automaton.accepted(state)
            state = automaton.advance(state, "/")
        known = len(self._directories)
        if known >= _MOST_DIRECTORIES or known * automaton.size * 3 > _STATES_SIZE:
            self._directories = {"": self._directories[""]}
        self._directories[directory] = state, accepted
        return state, accepted


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
    return _go_automaton(pattern).matches(name)


@lru_cache(maxsize=64)
def _go_automaton(pattern: str) -> Automaton:
    return Automaton([_tokens(pattern, depth=False)])


def _ignore_tokens(pattern: str) -> list[Token]:
    """A pattern of .dockerignore: as `go_match`, and `**` for any number of directories."""
    tokens = _tokens(pattern, depth=True)
    if pattern.startswith("**") and len(pattern) > 2 and not any(each in "*?[]\\" for each in pattern[2:]):
        # Docker compares the end of the path then, slash or not: `**foo` matches `afoo`.
        return [Wild.DEPTH, *pattern[3:]] if pattern[2] == "/" else [Wild.REST, *pattern[2:]]
    return tokens


def _tokens(pattern: str, *, depth: bool) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*" and depth and pattern.startswith("*", at):
            at += 2 if pattern.startswith("/", at + 1) else 1
            tokens.append(Wild.REST if at == len(pattern) else Wild.DEPTH)
        elif character == "*":
            tokens.append(Wild.STAR)
        elif character == "?":
            tokens.append(Wild.ONE)
        elif character == "[":
            found, at = _brackets(pattern, at)
            tokens.append(found)
        elif character == "\\":
            if at == len(pattern):
                raise _bad_pattern()
            tokens.append(pattern[at])
            at += 1
        else:
            tokens.append(character)
    return tokens


def _brackets(pattern: str, at: int) -> tuple[CharacterClass, int]:
    """A class behind its `[`, and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _member(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _member(pattern, at + 1)
        ranges.append((low, high))
    return CharacterClass(tuple(ranges), negated), at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    if at < len(pattern) and pattern[at] not in "-]":
        if pattern[at] == "\\":
            at += 1
        if at < len(pattern) - 1:
            return pattern[at], at + 1
    raise _bad_pattern()


def _bad_pattern() -> InvalidParameter:
    return InvalidParameter("syntax error in pattern")
