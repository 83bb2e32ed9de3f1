"""Times and durations: as Go writes them, and as Docker's API takes them (moby's api/types/time).

Everywhere an int is nanoseconds, of a time since the epoch.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from longshore.errors import InvalidParameter

ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time: "never"."""
SECOND = 1_000_000_000

_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": SECOND}
_UNITS |= {"m": 60 * SECOND, "h": 3600 * SECOND}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d(?::\d\d){0,2}))?(?:\.(\d+))?(Z|z|[+-]\d\d:\d\d)?", re.ASCII
)


def now() -> str:
    """The present as Docker writes it."""
    return rfc3339_nano(time.time_ns())


def rfc3339_nano(nanoseconds: int) -> str:
    """Go's time.RFC3339Nano in UTC: the fraction without its trailing zeros; 0 is "never"."""
    if nanoseconds <= 0:
        return ZERO_TIME
    second, rest = divmod(nanoseconds, SECOND)
    return f"{_clock(second)}.{rest:09d}".rstrip("0").rstrip(".") + "Z"


def rfc3339_fixed(nanoseconds: int) -> str:
    """The same with nine digits always, which makes times sort as text."""
    second, rest = divmod(nanoseconds, SECOND)
    return f"{_clock(second)}.{rest:09d}Z"


def parse_rfc3339(text: str) -> int:
    """A time as Docker writes it; less than 0 for Go's zero time, and 0 for what is none."""
    match = _RFC3339.fullmatch(text)
    return (_moment(match, UTC) if match else None) or 0


def parse_unix(text: str) -> int:
    """Seconds since the epoch with an optional fraction (ParseTimestamps). Raises InvalidParameter."""
    whole, _, fraction = text.partition(".")
    for part in (whole, fraction or "0"):
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", part):
            raise InvalidParameter(f'strconv.ParseInt: parsing "{part}": invalid syntax')
    return int(whole) * SECOND + int(fraction[:9].ljust(9, "0") if fraction else 0)


def parse_moment(text: str) -> int:
    """A time as a person gives it: a duration before now, a date and time, or seconds since the epoch.

    Without a zone, a date is of this machine's zone (GetTimestamp). Raises InvalidParameter.
    """
    if text != "0":
        try:
            return time.time_ns() - parse_duration(text)
        except InvalidParameter:
            pass
    match = _RFC3339.fullmatch(text)
    if match is not None and (moment := _moment(match, None)) is not None:
        return moment
    if "-" in text:
        raise InvalidParameter(f'parsing time "{text}" as "2006-01-02": cannot parse "{text}" as "2006"')
    try:
        return parse_unix(text)
    except InvalidParameter:
        raise InvalidParameter(f'failed to parse value as time or duration: "{text}"') from None


def parse_duration(text: str) -> int:
    """As time.ParseDuration: `1h30m`, `-1.5s`, `0`. Raises InvalidParameter with Go's message."""
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    if unsigned == "0":
        return 0
    total, end = 0.0, 0
    while end < len(unsigned):
        part = _PART.match(unsigned, end)
        if part is None:
            break
        number, unit = part.groups()
        if not unit:
            raise InvalidParameter(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise InvalidParameter(f'time: unknown unit "{unit}" in duration "{text}"')
        total, end = total + float(number) * _UNITS[unit], part.end()
    if not unsigned or end < len(unsigned):
        raise InvalidParameter(f'time: invalid duration "{text}"')
    return round(-total if text.startswith("-") else total)


def _moment(match: re.Match[str], zone: object) -> int | None:
    date, clock, fraction, offset = match.groups()
    clock = (clock or "00") + ":00" * (2 - (clock or "").count(":"))
    try:
        whole = datetime.fromisoformat(f"{date}T{clock}{(offset or '').upper().replace('Z', '+00:00')}")
        if whole.tzinfo is None:
            whole = whole.replace(tzinfo=UTC) if zone is UTC else whole.astimezone()
        seconds = int(whole.timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds * SECOND + int((fraction or "0")[:9].ljust(9, "0"))


_FIRST, _FINAL = -62135596800, 253402300799
"""The seconds of the years 1 and 9999."""
_last = (-1, "")


def _clock(second: int) -> str:
    """Times come in crowds of the same second: the last one is remembered."""
    global _last  # noqa: PLW0603
    known = _last
    if known[0] != second:
        shown = min(max(second, _FIRST), _FINAL)  # what nobody's clock says, a client may still ask for
        known = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(shown)))
        _last = known
    return known[1]
