"""Signals by name and number, as users write them; see signal(7)."""

from __future__ import annotations

import signal

from longshore.errors import InvalidParameter

_NUMBERS = {member.name.removeprefix("SIG"): int(member) for member in signal.Signals} | {
    "IOT": int(signal.SIGABRT),
    "CLD": int(signal.SIGCHLD),
    "POLL": int(signal.SIGIO),
    "STKFLT": 16,
    "RTMIN": 34,  # the two below are libc's own
    "RTMAX": 64,
    **{f"RTMIN+{step}": 34 + step for step in range(1, 16)},
    **{f"RTMAX-{step}": 64 - step for step in range(1, 15)},
}


def parse_signal(text: str) -> int:
    """The number of `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3` or `9`. Raises InvalidParameter."""
    if text.isascii() and text.isdigit():
        number = int(text)
        if number == 0:
            raise InvalidParameter(f"invalid signal: {text}")
        return number
    found = _NUMBERS.get(text.upper().removeprefix("SIG"))
    if found is None:
        raise InvalidParameter(f"invalid signal: {text}")
    return found


def is_valid_signal(number: int) -> bool:
    """Whether Linux has a signal of this number."""
    return number in _NUMBERS.values()


def signal_name(number: int) -> str:
    """`KILL` for 9; the number as text if it has no name."""
    for member in signal.Signals:
        if member == number:
            return member.name.removeprefix("SIG")
    return str(number)
