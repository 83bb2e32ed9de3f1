"""Cutting a byte stream into what log drivers keep: whole lines, and pieces of very long ones."""

from __future__ import annotations

from collections.abc import Iterator

PIECE = 16 * 1024
"""A line of this many bytes or more is kept in pieces of this size, as by dockerd's copier."""


class LineSplitter:
    """Cuts one stream. Holds back the unfinished last line until its end, or the stream's, comes."""

    def __init__(self, piece: int = PIECE) -> None:
        self._piece = piece
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bool]]:
        """Yield (block, partial) as LogDriver.log takes them."""
        data = self._rest + chunk if self._rest else chunk
        start, position, piece = 0, 0, self._piece
        while len(data) - position >= piece:
            newline = data.rfind(b"\n", position, position + piece)
            if newline >= 0:
                position = newline + 1
                continue
            # The line at `position` is a long one: what came before goes out whole, then its first piece.
            if position > start:
                yield data[start:position], False
            yield data[position : position + piece], True
            start = position = position + piece
        end = data.rfind(b"\n", position) + 1 or position
        if end > start:
            yield data[start:end], False
        self._rest = data[end:]

    def flush(self) -> Iterator[tuple[bytes, bool]]:
        """The stream ended: yield what was held back."""
        if self._rest:
            yield self._rest, True
        self._rest = b""
