"""Records as they lie in log files, told apart and decoded: one class a file format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import msgspec

_BLOCK = 64 * 1024


class Record(msgspec.Struct, gc=False):
    """One message: a line with its newline, or a piece of one without."""

    log: str = ""
    """What was no UTF-8 is there as lone surrogates (Python's surrogateescape)."""
    stream: str = ""
    time: str = ""
    """RFC 3339, UTC."""
    attrs: dict[str, str] | None = None


class Format(Protocol):
    """A file format."""

    def whole(self, data: bytes) -> int:
        """How many bytes of `data` are whole records."""

    def sound(self, data: bytes) -> int:
        """How many bytes of `data` are whole records, of which the last one can be decoded."""

    def tail(self, fd: int, count: int) -> tuple[int, int]:
        """The offset of the last `count` records of a file, and how many of them there are."""

    def decode(self, data: bytes) -> Sequence[Record]:
        """Decode whole records; those that cannot be (torn by a crash) are left out."""


class JsonFormat:
    """An object a line."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Record)

    def whole(self, data: bytes) -> int:
        """See Format."""
        return data.rfind(b"\n") + 1

    def sound(self, data: bytes) -> int:
        """See Format."""
        end = self.whole(data)
        last = data.rfind(b"\n", 0, max(0, end - 1)) + 1
        return end if self.decode(data[last:end]) else last

    def tail(self, fd: int, count: int) -> tuple[int, int]:
        """Search backwards for newlines."""
        position = size = os.fstat(fd).st_size
        if not count:
            return size, 0
        found = 0
        # The newline that ends the file begins no line.
        end = size - 1
        while position > 0:
            start = max(0, position - _BLOCK)
            block = os.pread(fd, min(position, end) - start, start)
            newlines = block.count(b"\n")
            if found + newlines < count:
                found += newlines
                position = start
                continue
            at = len(block)
            while found < count:
                at = block.rfind(b"\n", 0, at)
                found += 1
            return start + at + 1, count
        return 0, found + (1 if size else 0)

    def decode(self, data: bytes) -> Sequence[Record]:
        """See Format."""
        try:
            return self._decoder.decode_lines(data)
        except msgspec.DecodeError:
            return self._decode_one_by_one(data)

    def _decode_one_by_one(self, data: bytes) -> list[Record]:
        records = []
        for line in data.split(b"\n"):
            try:
                records.append(self._decoder.decode(line))
            except msgspec.DecodeError:
                continue
        return records


def format_of(driver: str) -> Format:
    """The format of the files of a driver."""
    if driver == "json-file":
        return JsonFormat()
    # Drivers that send a log elsewhere keep a copy in the local driver's format.
    from longshore.logs.local import LocalFormat

    return LocalFormat()
