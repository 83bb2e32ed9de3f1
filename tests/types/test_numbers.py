"""Numbers in texts that others wrote."""

from __future__ import annotations

import pytest

from longshore.images.registry.platforms import Platform, rank
from longshore.types.numbers import decimal


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("007", 7), ("9" * 18, 10**18 - 1), ("", None), ("²", None), ("٣", None), ("-1", None)],
)
def test_decimal(text: str, number: int | None) -> None:
    assert decimal(text) == number
    assert decimal("9" * 5000) is None


def test_a_variant_of_a_billion_is_itself_alone() -> None:
    wanted = Platform("linux", "amd64", "v999999999")
    assert rank(wanted, wanted) == 0
    assert rank(wanted, Platform("linux", "amd64", "")) is None
