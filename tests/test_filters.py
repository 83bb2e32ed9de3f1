"""The `filters` parameter."""

from __future__ import annotations

import pytest

from longshore.errors import InvalidParameter
from longshore.types.filters import (
    boolean_filter,
    check_filters,
    exactly,
    labels_match,
    matches,
    parse_filters,
    until_filter,
)


def test_both_forms() -> None:
    assert parse_filters('{"a":{"x":true,"y":true},"b":["z"]}') == {"a": ["x", "y"], "b": ["z"]}
    assert parse_filters("") == {}


@pytest.mark.parametrize("text", ["nope", "[]", '{"a":1}', '{"a":{"b":"c"}}', "[" * 10_000])
def test_malformed(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid filter$"):
        parse_filters(text)


def test_values_are_alternatives_and_may_be_expressions() -> None:
    assert exactly({}, "a", "x")
    assert exactly({"a": ["x", "y"]}, "a", "y")
    assert not exactly({"a": ["x"]}, "a", "xx")
    assert matches({"a": ["^b.x$"]}, "a", "box")
    assert matches({"a": ["("]}, "a", "(")
    assert not matches({"a": ["("]}, "a", "box")


def test_labels() -> None:
    labels = {"a": "1", "b": "2"}
    assert labels_match({"label": ["a", "b=2"]}, labels)
    assert not labels_match({"label": ["a", "b=3"]}, labels)
    assert not labels_match({"label!": ["a"]}, labels)
    assert labels_match({"label!": ["a", "c"]}, labels)
    assert not labels_match({"label": ["a"]}, None)


def test_booleans() -> None:
    assert boolean_filter({}, "dangling") is None
    assert boolean_filter({"dangling": ["1", "true"]}, "dangling") is True
    assert boolean_filter({"dangling": ["false"]}, "dangling") is False
    for values in (["yes"], ["true", "false"]):
        with pytest.raises(InvalidParameter, match=r"^invalid filter 'dangling=\["):
            boolean_filter({"dangling": values}, "dangling")


def test_unknown_and_doubled() -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'nope'$"):
        check_filters({"nope": ["x"]}, ("yes",))
    with pytest.raises(InvalidParameter, match=r"^more than one until filter specified$"):
        until_filter({"until": ["1h", "2h"]})
