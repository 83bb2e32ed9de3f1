"""Wildcard patterns as one automaton, whose time is bounded by the length of the patterns times the text's.

All states are bits of one number, so that a step of many patterns costs no more than a few operations on it.
Regular expressions would take ever longer with each further wildcard, and let nobody else run meanwhile.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_MOST_MASKS = 1024
"""Characters whose mask is remembered …"""
_MASKS_SIZE = 16 << 20
"""… and bytes of all masks together."""


class Wild(enum.Enum):
    """What stands for more than one text."""

    ONE = "any character but the separator"
    STAR = "any number of characters that are no separators"
    REST = "any number of characters"
    DEPTH = "nothing, or anything that ends with a separator"


@dataclass(frozen=True)
class CharacterClass:
    """`[a-z]`: pairs of the first and the last character of each range."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool

    def accepts(self, character: str) -> bool:
        """Whether it stands for `character`, which may be the separator."""
        return any(low <= character <= high for low, high in self.ranges) != self.negated


Token = str | Wild | CharacterClass
"""A string is one character that stands for itself."""


class State(NamedTuple):
    """Where the automaton has got to: the tokens that may come next, and each DEPTH that was begun."""

    at: int
    inside: int


class Automaton:
    """Matches texts against several patterns at once."""

    def __init__(self, patterns: Iterable[Sequence[Token]], separator: str = "/") -> None:
        self._separator = separator
        self._masks: dict[str, int] = {}
        self._literals: dict[str, list[int]] = {}
        self._singles: list[tuple[int, CharacterClass | None]] = []
        places: dict[Wild, list[int]] = {wild: [] for wild in Wild}
        starts, self._ends, bit = [], [], 0
        for tokens in patterns:
            starts.append(bit)
            for token in tokens:
                if isinstance(token, str):
                    self._literals.setdefault(token, []).append(bit)
                elif isinstance(token, CharacterClass):
                    self._singles.append((bit, token))
                elif token is Wild.ONE:
                    self._singles.append((bit, None))
                else:
                    places[token].append(bit)
                bit += 1
            self._ends.append(bit)
            bit += 1
        self.size = bit // 8 + 1
        """Bytes of each number of a state."""
        self._rest, self._depth = self._bits(places[Wild.REST]), self._bits(places[Wild.DEPTH])
        self._loops = self._bits(places[Wild.STAR]) | self._rest
        self._skippable = self._loops | self._depth
        self._accepting = self._bits(self._ends)
        start = self._bits(starts)
        self.start = State(start | (self._skippable + (start & self._skippable)) ^ self._skippable, 0)
        """Before the first character."""

    def advance(self, state: State, text: Iterable[str]) -> State:
        """The state behind `text`."""
        at, inside = state
        separator, masks, depth, skippable = self._separator, self._masks, self._depth, self._skippable
        loops, rest = self._loops, self._rest
        for character in text:
            mask = masks.get(character)
            if mask is None:
                mask = self._mask(character)
            inside |= at & depth
            if character == separator:
                at = ((at & mask | inside) << 1) | at & rest
            else:
                at = ((at & mask) << 1) | at & loops
            # What can be skipped is skipped: a carry runs through each row of skippable tokens at once.
            at |= (skippable + (at & skippable)) ^ skippable
            if not at | inside:
                break
        return State(at, inside)

    def accepted(self, state: State) -> int:
        """The patterns that the text so far matches, to be given to `last`; 0 for none."""
        return state.at & self._accepting

    def last(self, accepted: int) -> int:
        """The number of the last pattern among those that were accepted, -1 for none."""
        return bisect_left(self._ends, accepted.bit_length() - 1) if accepted else -1

    def matches(self, text: str) -> bool:
        """Whether any of the patterns matches all of the text."""
        return bool(self.accepted(self.advance(self.start, text)))

    def ends(self, text: str, start: int = 0) -> Iterator[int]:
        """Where matches end that begin at `start`, in order."""
        state = self.start
        if self.accepted(state):
            yield start
        for at in range(start, len(text)):
            state = self.advance(state, text[at])
            if not any(state):
                return
            if self.accepted(state):
                yield at + 1

    def _mask(self, character: str) -> int:
        """The tokens that stand for this one character."""
        plain = character != self._separator
        places = [
            bit for bit, token in self._singles if (plain if token is None else token.accepts(character))
        ]
        mask = self._bits([*self._literals.get(character, ()), *places])
        if len(self._masks) >= _MOST_MASKS or len(self._masks) * self.size > _MASKS_SIZE:
            self._masks.clear()
        self._masks[character] = mask
        return mask

    def _bits(self, places: Iterable[int]) -> int:
        """One number with these bits set, made in one go: a long one is copied whenever it changes."""
        made = bytearray(self.size)
        for bit in places:
            made[bit >> 3] |= 1 << (bit & 7)
        return int.from_bytes(made, "little")
