"""Patterns of names: as Go's path.Match takes them, and in no time whatever they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.errors import System
from longshore.images.pattern import compile_pattern


def matches(pattern: str, text: str) -> bool:
    """By trying everything."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return matches(pattern[1:], text) or (text[:1] not in ("", "/") and matches(pattern, text[1:]))
    if not text or not (pattern[0] == text[0] or (pattern[0] == "?" and text[0] != "/")):
        return False
    return matches(pattern[1:], text[1:])


@given(st.text("ab/?*", max_size=8), st.text("ab/", max_size=8))
def test_stars_and_question_marks(pattern: str, text: str) -> None:
    assert bool(compile_pattern(pattern).fullmatch(text)) == matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text", "does"),
    [
        ("[a-c]*", "bx", True),
        ("[^a-c]*", "bx", False),
        ("[^a-c]*", "dx", True),
        ("*[0-9].[0-9]", "name:1.2", True),
        (r"a\*b*", "a*bc", True),
        (r"a\*b*", "axbc", False),
        (r"[\]]", "]", True),
        ("[b-a]", "a", False),
        ("busybox:*", "busybox:1.36\n", True),
    ],
)
def test_classes_and_escapes(pattern: str, text: str, does: bool) -> None:
    assert bool(compile_pattern(pattern).fullmatch(text)) == does


@pytest.mark.parametrize("pattern", ["[", "[]", "[a", "[a-", "[-a]", "\\", "*["])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(System, match="syntax error in pattern"):
        compile_pattern(pattern)


def test_many_stars() -> None:
    assert not compile_pattern("*a" * 60 + "b").fullmatch("a" * 255)
    assert compile_pattern("*a" * 60 + "*").fullmatch("a" * 255)
