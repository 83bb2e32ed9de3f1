"""The checksum against its definition."""

from __future__ import annotations

import random

import pytest

from longshore.layers.checksum import Crc64, crc64


def by_definition(data: bytes) -> bytes:
    """Bit by bit: reflected polynomial 0xD8…, all ones before and after."""
    state = (1 << 64) - 1
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0xD800000000000000 if state & 1 else 0)
    return (state ^ ((1 << 64) - 1)).to_bytes(8, "big")


def test_check_value() -> None:
    assert crc64(b"123456789").hex() == "b90956c775a41001"


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 63, 4095, 4096, 4097, 8192, 8193, 12_288, 30_001])
def test_any_length_in_any_pieces(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert crc64(data) == by_definition(data)
    pieces = Crc64()
    for at in range(0, length, 5000):
        pieces.update(data[at : at + 5000])
    assert pieces.digest() == crc64(data)
