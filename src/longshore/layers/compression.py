"""Reading streams that may be compressed: gzip, bzip2, xz and zstd are told by their first bytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from longshore.errors import InvalidParameter

CHUNK = 1 << 20
_COMPRESSED_CHUNK = 16 * 1024
"""Small, because a thousand times as much may come out of it."""

GZIP, BZIP2, XZ, ZSTD = b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def decompressed(stream: BinaryIO) -> Callable[[], bytes]:
    """A function that returns the next chunk of the plain stream, b"" at its end.

    It raises InvalidParameter if compressed data is damaged or cut off. Chunks are bounded for honest data
    of any length; a bomb of zeros makes them larger, never the sum of them held at once.
    """
    start = b""
    while len(start) < 6 and (more := stream.read(CHUNK)):
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
        while True:
            data, self._input = self._input or self._stream.read(_COMPRESSED_CHUNK), b""
            if self._member is None:
                if not data.lstrip(b"\0"):
                    if data:
                        continue
                    return b""
                self._member = self._make()
            if not data:
                raise InvalidParameter("unexpected EOF")
            try:
                plain = self._member.decompress(data)
            except Exception as exc:
                raise InvalidParameter(f"invalid compressed data: {exc}") from None
            if self._member.eof:
                self._input = self._member.unused_data
                self._member = None
            if plain:
                return plain


def _plain(stream: BinaryIO, start: bytes) -> Callable[[], bytes]:
    pending = [start] if start else []
    return lambda: pending.pop() if pending else stream.read(CHUNK)


def _decompressor_of(start: bytes) -> Callable[[], _Decompressor] | None:
    if start.startswith(GZIP):
        return lambda: zlib.decompressobj(wbits=31)
    if start.startswith(BZIP2):
        import bz2

        return bz2.BZ2Decompressor
    if start.startswith(XZ):
        import lzma

        return lzma.LZMADecompressor
    if start.startswith(ZSTD):
        import zstandard

        return lambda: zstandard.ZstdDecompressor().decompressobj()
    return None
