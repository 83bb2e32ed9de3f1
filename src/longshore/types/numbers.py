"""Numbers in texts that others wrote."""

from __future__ import annotations


def decimal(text: str) -> int | None:
    """A number of ASCII digits, of 18 at most; None for anything else.

    `str.isdigit` also takes `²`, which `int` refuses, as it does thousands of digits.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
