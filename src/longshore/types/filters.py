"""The `filters` parameter of lists, prunes and events (api/types/filters): parsed, checked and applied.

All values of one filter are alternatives, but for labels, of which all are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import msgspec

from longshore.errors import InvalidParameter
from longshore.types.timestamp import parse_moment

Filters = Mapping[str, Collection[str]]
"""Filter names to the values given for each."""


def parse_filters(text: str) -> dict[str, list[str]]:
    """A JSON map of names to sets (maps to true), or to lists as before API 1.22. Raises InvalidParameter."""
    if not text:
        return {}
    try:
        given = msgspec.json.decode(text, type=dict[str, dict[str, bool] | list[str]])
    except (msgspec.DecodeError, RecursionError):
        raise InvalidParameter("invalid filter") from None
    return {name: list(values) for name, values in given.items()}


def check_filters(filters: Filters, known: Collection[str]) -> None:
    """Raises InvalidParameter for a filter that is not `known`."""
    for name in filters:
        if name not in known:
            raise InvalidParameter(f"invalid filter '{name}'")


def boolean_filter(filters: Filters, name: str) -> bool | None:
    """The one value of a filter that is true or false, None without it. Raises InvalidParameter."""
    if name not in filters:
        return None
    values = set(filters[name])
    if not values:
        raise InvalidParameter(f"invalid filter '{name}'")
    false, true = not values.isdisjoint(("0", "false")), not values.isdisjoint(("1", "true"))
    if false == true:
        raise InvalidParameter(f"invalid filter '{name}=[{' '.join(sorted(values))}]'")
    return true


def until_filter(filters: Filters) -> int | None:
    """The one `until`, nanoseconds since the epoch; None without it. Raises InvalidParameter."""
    values = list(filters.get("until", ()))
    if not values:
        return None
    if len(values) > 1:
        raise InvalidParameter("more than one until filter specified")
    return parse_moment(values[0])


def exactly(filters: Filters, name: str, value: str) -> bool:
    """Whether `value` is among those of the filter, or there is none."""
    wanted = filters.get(name)
    return not wanted or value in wanted


def matches(filters: Filters, name: str, *texts: str) -> bool:
    """The same for any of `texts`, and the filter's values are regular expressions as well."""
    wanted = filters.get(name)
    return not wanted or any(text == value or _search(value, text) for value in wanted for text in texts)


def labels_match(filters: Filters, labels: Mapping[str, str] | None) -> bool:
    """Whether all of `label` are there (`key` or `key=value`), and not all of `label!`."""
    labels = labels or {}
    unwanted = filters.get("label!")
    return has_labels(labels, filters.get("label", ())) and not (unwanted and has_labels(labels, unwanted))


def has_labels(labels: Mapping[str, str], wanted: Collection[str]) -> bool:
    """Whether each of `wanted` is among `labels`."""
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _search(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False  # It may still be the very text.
