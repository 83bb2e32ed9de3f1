"""CRC-64/GO-ISO, which tar-split keeps for every file, in nothing but Python's big integers.

A byte-by-byte loop would take minutes for an image. But the polynomial is sparse: x^64 = (x+1)(x^3+1), and
squaring in characteristic two keeps it so: x^(64k) = (x^k+1)(x^3k+1) for every power of two k. So half of a
message is folded onto its other half with two shifts and three exclusive-ors of whole integers.
"""

from __future__ import annotations

_CHUNK = 32 * 1024
"""Bytes folded at once: what stays in the processor's cache."""

_ONES = (1 << 64) - 1


class Crc64:
    """A running checksum. `digest` is big endian, as Go's hash.Hash64 writes its sum."""

    def __init__(self) -> None:
        self._state = _ONES

    def update(self, data: bytes) -> None:
        """Add `data` to the checksum."""
        if len(data) <= _CHUNK:
            if data:
                self._state = _fold(data, self._state)
            return
        view = memoryview(data)
        for at in range(0, len(data), _CHUNK):
            self._state = _fold(view[at : at + _CHUNK], self._state)

    def digest(self) -> bytes:
        """The checksum of everything so far."""
        return (self._state ^ _ONES).to_bytes(8, "big")


def crc64(data: bytes) -> bytes:
    """The checksum of `data`."""
    checksum = Crc64()
    checksum.update(data)
    return checksum.digest()


def _fold(data: bytes | memoryview, state: int) -> int:
    # Bits are reflected: bit 0 belongs to the highest power, so multiplying by x is a shift to the right.
    message = int.from_bytes(data, "little") ^ state
    length = 8 * len(data) + 64
    power = max((length - 1).bit_length() - 7, 0)
    while power >= 0:
        k, size = 1 << power, 64 << power
        while length > size:
            high = length - size
            width = max(size, high + 4 * k)
            rest = message >> high
            product = (message ^ (rest << high)) << (width - high)
            product ^= product >> k
            product ^= product >> 3 * k
            message = (rest << (width - size)) ^ product
            length = width
        power -= 1
    return message
