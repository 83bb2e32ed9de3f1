"""TLS over a transport we keep, so that each direction can end on its own.

asyncio closes a TLS connection as a whole at the first close_notify, and with it the output of
`echo x | docker -H tcp://… run -i …`. Between two memory BIOs the end of one direction is just that.
"""

from __future__ import annotations

import contextlib
import ssl


class TlsChannel:
    """The server's end of one TLS connection: ciphertext in, plaintext out, and the reverse."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._shaken = False
        self.peer_closed = False
        """Whether the client has finished sending."""

    def receive(self, data: bytes) -> bytes:
        """Take ciphertext from the network; return the plaintext it completes. Raises ssl.SSLError.

        What must be sent in turn, a handshake's next step say, is in `outgoing`.
        """
        self._incoming.write(data)
        plain = bytearray()
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
            while not self.peer_closed:
                try:
                    chunk = self._tls.read(256 << 10)
                except ssl.SSLZeroReturnError:
                    chunk = b""
                if not chunk:
                    self.peer_closed = True
                plain += chunk
        return bytes(plain)

    def seal(self, data: bytes) -> bytes:
        """Ciphertext for `data`, after whatever is still to be sent. Raises ssl.SSLError."""
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        return self.outgoing()

    def close(self) -> None:
        """Say that no more will be sent (close_notify); receiving goes on."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()

    def outgoing(self) -> bytes:
        """Ciphertext to send now."""
        return self._outgoing.read()
