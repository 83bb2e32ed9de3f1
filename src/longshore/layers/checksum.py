"""CRC-64/GO-ISO, which tar-split keeps for every file."""

from __future__ import annotations


class Crc64:
    """A running checksum. `digest` is big endian, as Go's hash.Hash64 writes its sum."""

    def __init__(self) -> None:
        from fastcrc.crc64 import go_iso

        self._sum = go_iso
        self._state = 0

    def update(self, data: bytes) -> None:
        """Add `data` to the checksum."""
        self._state = self._sum(data, self._state)

    def digest(self) -> bytes:
        """The checksum of everything so far."""
        return self._state.to_bytes(8, "big")


def crc64(data: bytes) -> bytes:
    """The checksum of `data`."""
    from fastcrc.crc64 import go_iso

    return go_iso(data).to_bytes(8, "big")
