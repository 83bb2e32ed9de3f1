"""The connection under an attach, once HTTP is out of the way."""

from __future__ import annotations

from typing import Protocol


class RawConnection(Protocol):
    """A client's byte stream whose two directions close independently, as a hijacked connection's do."""

    async def read(self) -> bytes:
        """Some bytes from the client; b"" once it has closed its sending side. OSError if it is gone."""

    async def write(self, data: bytes) -> None:
        """Send everything, returning when there is room for more. OSError if the client is gone."""

    async def write_eof(self) -> None:
        """Close the sending side; the client may still send."""

    async def close(self) -> None:
        """Close both sides; may be called more than once."""
