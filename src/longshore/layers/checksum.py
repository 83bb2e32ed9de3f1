"""CRC-64/GO-ISO, which tar-split keeps for every file, in nothing but Python's big integers.

A byte-by-byte loop would take minutes for an image. But the polynomial is sparse: x^64 = (x+1)(x^3+1), and
squaring in characteristic two keeps it so: x^(64k) = (x^k+1)(x^3k+1) for every power of two k. So half of a
message is folded onto its other half with two shifts and three exclusive-ors of whole integers.
"""

from __future__ import annotations

_BLOCK = 4096
"""Bytes folded at once, a power of two: what stays in the processor's first cache."""

_ONES = (1 << 64) - 1


class Crc64:
    """A running checksum. `digest` is big endian, as Go's hash.Hash64 writes its sum."""

    def __init__(self) -> None:
        self._state = _ONES

    def update(self, data: bytes) -> None:
        """Add `data` to the checksum."""
        whole = len(data) - len(data) % _BLOCK
        if whole > _BLOCK:
            view = memoryview(data)
            self._state = _fold(_fold_blocks(view[:whole], self._state), 0)
            data = data[whole:]
        if data:
            self._state = _fold(data, self._state)

    def digest(self) -> bytes:
        """The checksum of everything so far."""
        return (self._state ^ _ONES).to_bytes(8, "big")


def crc64(data: bytes) -> bytes:
    """The checksum of `data`."""
    checksum = Crc64()
    checksum.update(data)
    return checksum.digest()


def _fold_blocks(data: memoryview, state: int) -> bytes:
    """One block with the same remainder as all of `data`, which is a number of whole blocks."""
    bits, k = 8 * _BLOCK, 8 * _BLOCK // 64
    overflow = 4 * k
    mask = (1 << overflow) - 1
    folded = int.from_bytes(data[:_BLOCK], "little") ^ state
    for at in range(_BLOCK, len(data), _BLOCK):
        # Multiply by x^bits, with room for the powers that exceed a block, and reduce those once more.
        product = folded << overflow
        product ^= product >> k
        product ^= product >> 3 * k
        high = (product & mask) << overflow
        high ^= high >> k
        high ^= high >> 3 * k
        folded = (product >> overflow) ^ (high << (bits - 2 * overflow))
        folded ^= int.from_bytes(data[at : at + _BLOCK], "little")
    return folded.to_bytes(_BLOCK, "little")


def _fold(data: bytes, state: int) -> int:
    """The state after `data`, by halving."""
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
