"""nftables through libnftables, in this process: one call, one transaction."""

from __future__ import annotations

import ctypes
import threading

_TERSE = 1 << 11
"""NFT_CTX_OUTPUT_TERSE of nftables/libnftables.h."""


class NftablesError(OSError):
    """A transaction was refused; nothing of it took effect. The text is libnftables' own."""


class Nftables:
    """A libnftables context, bound to the network namespace of the thread that makes it.

    Calls from several threads are taken one after another.
    """

    def __init__(self) -> None:
        """Raises OSError if libnftables.so.1 is not installed or the kernel has no nftables."""
        library = ctypes.CDLL("libnftables.so.1")
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        for function in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
            getattr(library, function).argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_output_buffer.argtypes = [ctypes.c_void_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._lock = threading.Lock()
        self._context: int | None = library.nft_ctx_new(0)
        if not self._context:
            raise OSError("libnftables gives no context")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str, *, terse: bool = False) -> str:
        """Run nft(8) commands as one transaction and return their output. Raises NftablesError. Blocks.

        `terse` leaves the elements of sets and maps out of what is listed.
        """
        with self._lock:
            if not self._context:
                raise NftablesError("the connection is closed")
            self._library.nft_ctx_output_set_flags(self._context, _TERSE if terse else 0)
            result = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            errors = self._library.nft_ctx_get_error_buffer(self._context) or b""
            output = self._library.nft_ctx_get_output_buffer(self._context) or b""
        if result != 0:
            raise NftablesError(errors.decode(errors="replace").strip())
        return bytes(output).decode(errors="replace")

    def close(self) -> None:
        """Free the context."""
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None
