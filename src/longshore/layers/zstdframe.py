"""One frame of a zstd stream, decompressed a block at a time.

The library gives out all that its input holds, and 16 KiB of input may hold 500 MiB. A block holds no more
than 128 KiB, so what is fed is cut along blocks (RFC 8878, section 3.1).
"""

from __future__ import annotations

import zstandard

MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"
_MOST_IN_BLOCK = 128 << 10
_RLE, _RESERVED = 1, 3


def starts_frame(data: bytes) -> bool:
    """Whether `data` begins as a frame does, one to be skipped included."""
    return data.startswith(MAGIC) or (data[1:4] == _SKIPPABLE and data[0] >> 4 == 5)


class ZstdFrame:
    """Shaped as bz2.BZ2Decompressor; each call gives at most one block, whatever its `max_length`."""

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._input = bytearray()
        self._needed = 8
        """Bytes that must be there before the next step can be taken."""
        self._skip = 0
        self._began = self._checksum = False
        self.eof = False

    @property
    def needs_input(self) -> bool:
        return not self.eof and len(self._input) < self._needed

    @property
    def unused_data(self) -> bytes:
        return bytes(self._input) if self.eof else b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """The next block, b"" if there is not enough input for it. Raises ValueError, zstandard.ZstdError."""
        self._input += data
        if self._skip:
            return self._skip_on()
        if self.needs_input:
            return b""
        return self._next_block() if self._began else self._begin()

    def _begin(self) -> bytes:
        if not self._input.startswith(MAGIC):
            if not starts_frame(bytes(self._input[:4])):
                raise ValueError("no zstd frame")
            self._skip = 8 + int.from_bytes(self._input[4:8], "little")
            return self._skip_on()
        descriptor = self._input[4]
        single = descriptor >> 5 & 1
        size_field = (single, 2, 4, 8)[descriptor >> 6]
        header = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_field
        if len(self._input) < header:
            self._needed = header
            return b""
        self._checksum = bool(descriptor & 4)
        self._began, self._needed = True, 3
        return self._take(header)

    def _next_block(self) -> bytes:
        header = int.from_bytes(self._input[:3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == _RESERVED or size > _MOST_IN_BLOCK:
            raise ValueError("damaged zstd block")
        length = 3 + (1 if kind == _RLE else size) + (4 if last and self._checksum else 0)
        if len(self._input) < length:
            self._needed = length
            return b""
        self._needed = 3
        plain = self._take(length)
        self.eof = self._frame.eof
        if last and not self.eof:
            raise ValueError("damaged zstd frame")
        return plain

    def _skip_on(self) -> bytes:
        skipped = min(self._skip, len(self._input))
        del self._input[:skipped]
        self._skip -= skipped
        self._needed = 1
        self.eof = not self._skip
        return b""

    def _take(self, length: int) -> bytes:
        piece = bytes(self._input[:length])
        del self._input[:length]
        return self._frame.decompress(piece)
