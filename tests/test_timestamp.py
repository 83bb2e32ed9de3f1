"""Times and durations as Go and Docker's API have them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from longshore.errors import InvalidParameter
from longshore.types.timestamp import (
    SECOND,
    ZERO_TIME,
    parse_duration,
    parse_moment,
    parse_rfc3339,
    parse_unix,
    rfc3339_fixed,
    rfc3339_nano,
)

MOMENT = 1136073600 * SECOND


@pytest.mark.parametrize(
    ("parse", "text", "nanoseconds"),
    [
        (parse_unix, "1136073600", MOMENT),
        (parse_unix, "1136073600.000000001", MOMENT + 1),
        (parse_unix, "1136073600.5", MOMENT + SECOND // 2),
        (parse_unix, "-1", -SECOND),
        (parse_moment, "1136073600.5", MOMENT + SECOND // 2),
        (parse_moment, "2006-01-01T00:00:00Z", MOMENT),
        (parse_moment, "2006-01-01T00:00:00.123456789Z", MOMENT + 123456789),
        (parse_moment, "2006-01-01T01:00+01:00", MOMENT),
        (parse_moment, "2006-01-01Z", MOMENT),
        (parse_rfc3339, "2006-01-01T01:00:00.5+01:00", MOMENT + SECOND // 2),
        (parse_rfc3339, "2006-01-01T00:00:00", MOMENT),
        (parse_rfc3339, "yesterday", 0),
        (parse_duration, "1h30m", 5400 * SECOND),
        (parse_duration, "-1.5s", -1_500_000_000),
        (parse_duration, "2ms3us4ns", 2_003_004),
        (parse_duration, "0", 0),
    ],
)
def test_parsed(parse: Callable[[str], int], text: str, nanoseconds: int) -> None:
    assert parse(text) == nanoseconds


def test_never_is_before_all_times() -> None:
    assert parse_rfc3339(ZERO_TIME) < 0
    assert rfc3339_nano(0) == ZERO_TIME


def test_written() -> None:
    assert rfc3339_nano(MOMENT) == "2006-01-01T00:00:00Z"
    assert rfc3339_nano(MOMENT + 120_000_000) == "2006-01-01T00:00:00.12Z"
    assert rfc3339_fixed(MOMENT + 120_000_000) == "2006-01-01T00:00:00.120000000Z"


def test_durations_count_back_from_now() -> None:
    assert abs(time.time_ns() - 600 * SECOND - parse_moment("10m")) < SECOND


def test_a_date_without_a_zone_is_of_this_machine() -> None:
    assert parse_moment("2006-01-01") == int(time.mktime((2006, 1, 1, 0, 0, 0, 0, 0, -1))) * SECOND


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_unix, "10m", 'strconv.ParseInt: parsing "10m": invalid syntax'),
        (parse_unix, "1.x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        (parse_moment, "soon", 'failed to parse value as time or duration: "soon"'),
        (parse_moment, "2006-13-01", 'parsing time "2006-13-01"'),
        (parse_duration, "10", 'time: missing unit in duration "10"'),
        (parse_duration, "1d", 'time: unknown unit "d" in duration "1d"'),
        (parse_duration, "", 'time: invalid duration ""'),
        (parse_duration, "1h 30m", 'time: unknown unit "h " in duration "1h 30m"'),
        (parse_duration, "s", 'time: invalid duration "s"'),
    ],
)
def test_refused(parse: Callable[[str], int], text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        parse(text)
    assert raised.value.message.startswith(message)
