"""Reading streams that may be compressed: gzip, bzip2, xz and zstd are told by their first bytes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from longshore.errors import InvalidParameter

CHUNK = 1 << 20
"""The most that one read gives."""
_COMPRESSED_CHUNK = 16 * 1024
_MOST_DICTIONARY = 128 << 20
"""Of xz: enough for `xz -9`, which takes 65 MiB to undo. A stream may ask for 4 GiB."""

GZIP, XZ = b"\x1f\x8b\x08", b"\xfd7zXZ\x00"
_BZIP2 = re.compile(rb"BZh[1-9]")
_BZIP2_MARKS = (b"1AY&", b"\x17rE8")
"""How a block begins, and the end. One must follow: an archive may begin with a file called `BZh9`."""
_LONGEST_MARK = 8
_ZSTD_MARKS = (b"\xb5\x2f\xfd", b"\x2a\x4d\x18")
"""The last three bytes of a zstd frame's magic number, and of one to be skipped."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def decompressed(stream: BinaryIO) -> Callable[[], bytes]:
    """A function that returns the next chunk of the plain stream, b"" at its end.

    It raises InvalidParameter if compressed data is damaged or cut off. No chunk is larger than CHUNK,
    however much a few bytes expand to.
    """
    start = b""
    while len(start) < _LONGEST_MARK and (more := stream.read(CHUNK)):
        start += more
    make = _decompressor_of(start)
    if make is None:
        return _plain(stream, start)
    return _Decompressed(stream, start, make).read


def is_compressed(start: bytes) -> bool:
    """Whether a stream that begins so is compressed in a way known here."""
    return _decompressor_of(start) is not None


class _Decompressed:
    """Concatenated members, which every one of these formats allows, read as one."""

    def __init__(self, stream: BinaryIO, start: bytes, make: Callable[[], _Decompressor]) -> None:
        self._stream = stream
        self._input = start
        self._make = make
        self._member: _Decompressor | None = make()

    def read(self) -> bytes:
        while (member := self._current()) is not None:
            data = b""
            if member.needs_input:
                data, self._input = self._input or self._stream.read(_COMPRESSED_CHUNK), b""
                if not data:
                    raise InvalidParameter("unexpected EOF")
            try:
                plain = member.decompress(data, CHUNK)
            except Exception as exc:
                raise InvalidParameter(f"invalid compressed data: {exc}") from None
            if member.eof:
                self._input = member.unused_data
                self._member = None
            if plain:
                return plain
        return b""

    def _current(self) -> _Decompressor | None:
        """The member to read from, None at the stream's end. Zeros may pad it."""
        while self._member is None:
            self._input = self._input or self._stream.read(_COMPRESSED_CHUNK)
            if not self._input:
                return None
            if self._input.strip(b"\0"):
                self._member = self._make()
            else:
                self._input = b""
        return self._member


class _Gzip:
    """zlib's decompressor in the shape of the other ones."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        plain = self._inner.decompress(data or self._inner.unconsumed_tail, max_length)
        # A full answer may leave some inside, with no input left over to tell of it.
        self.needs_input = len(plain) < max_length and not self._inner.unconsumed_tail
        return plain


def _plain(stream: BinaryIO, start: bytes) -> Callable[[], bytes]:
    pending = [start] if start else []
    return lambda: pending.pop() if pending else stream.read(CHUNK)


def _decompressor_of(start: bytes) -> Callable[[], _Decompressor] | None:
    if start.startswith(GZIP):
        return _Gzip
    if _BZIP2.match(start) and any(mark.startswith(start[4:8] or b"-") for mark in _BZIP2_MARKS):
        import bz2

        return bz2.BZ2Decompressor
    if start.startswith(XZ):
        import lzma

        return lambda: lzma.LZMADecompressor(memlimit=_MOST_DICTIONARY)
    if start[1:4] in _ZSTD_MARKS:
        from longshore.layers.zstdframe import ZstdFrame, starts_frame

        return ZstdFrame if starts_frame(start) else None
    return None
