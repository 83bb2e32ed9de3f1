"""Blocks of output cut into messages, for drivers that send line by line."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import msgspec


class Partial(msgspec.Struct, frozen=True, gc=False):
    """Which piece of a long line a message is (backend.PartialLogMetaData)."""

    id: str
    ordinal: int
    """Counts from 1."""
    last: bool


class Message(msgspec.Struct, frozen=True, gc=False):
    """A line without its newline, or a piece of one."""

    stream: str
    line: bytes
    time_ns: int
    partial: Partial | None = None

    @property
    def text(self) -> str:
        """The line; bytes that are not UTF-8 are replaced."""
        return self.line.decode("utf-8", "replace")


class MessageCutter:
    """Cuts what LogDriver.log takes, and remembers the long line that a stream is amidst."""

    def __init__(self) -> None:
        self._amidst: dict[str, Partial] = {}

    def cut(self, stream: str, block: bytes, time_ns: int, partial: bool) -> Iterator[Message]:
        """Yield the messages of a block."""
        if partial:
            before = self._amidst.get(stream)
            piece = Partial(before.id if before else secrets.token_hex(32), _next(before), False)
            self._amidst[stream] = piece
            yield Message(stream, block, time_ns, piece)
            return
        for line in block.split(b"\n")[:-1]:
            before = self._amidst.pop(stream, None)
            last = Partial(before.id, _next(before), True) if before else None
            yield Message(stream, line, time_ns, last)


def _next(before: Partial | None) -> int:
    return before.ordinal + 1 if before else 1
