"""The process's own memory, as glibc keeps it."""

from __future__ import annotations

import ctypes

_libc = ctypes.CDLL(None)


def trim() -> None:
    """Give free pages of the heap back to the kernel: malloc_trim(3). Nothing happens with another libc."""
    malloc_trim = getattr(_libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
