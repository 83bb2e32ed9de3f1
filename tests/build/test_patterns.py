"""Patterns: .dockerignore's and Go's."""

from __future__ import annotations

import tracemalloc

import pytest

from longshore.build.patterns import IgnoreRules, go_match, has_wildcards, read_ignore_file
from longshore.errors import InvalidParameter


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [
        (["a"], "a", True),
        (["a"], "a/b/c", True),
        (["a"], "b/a", False),
        (["a/"], "a", True),
        (["/a"], "a", False),
        (["./a"], "a", True),
        (["a*"], "abc", True),
        (["a*"], "b/abc", False),
        (["*/a"], "b/a", True),
        (["*/a"], "b/c/a", False),
        (["a?c"], "abc", True),
        (["a?c"], "a/c", False),
        (["[a-c]x"], "bx", True),
        (["[^a-c]x"], "bx", False),
        (["[^a-c]x"], "dx", True),
        (["**"], "a/b", True),
        (["**/a"], "a", True),
        (["**/a"], "b/c/a", True),
        (["**/a"], "b/ca", False),
        (["**a"], "b/ca", True),
        (["a/**"], "a/b", True),
        (["a/**"], "a", False),
        (["a/**/b"], "a/b", True),
        (["a/**/b"], "a/c/d/b", True),
        (["a/**/b"], "a/cb", False),
        (["**/*.go"], "a/b.go", True),
        (["**/*.go"], "b.go", True),
        (["**/x/**"], "a/x/b", True),
        (["a.b"], "aXb", False),
        (["a(b)+|$"], "a(b)+|$", True),
        (["a\\*"], "a*", True),
        (["a\\*"], "ab", False),
        (["a", "!a/b"], "a/b", False),
        (["a", "!a/b"], "a/c", True),
        (["!a", "a"], "a", True),
        (["*", "!a"], "a/b", False),
        (["*", "!a", "a/b"], "a/b", True),
        (["**", "!**/*.md"], "x/y.md", False),
        (["", "  ", " a "], "a", True),
        (["docs/../a"], "a", True),
    ],
)
def test_ignore_rules(patterns: list[str], path: str, excluded: bool) -> None:
    assert IgnoreRules(patterns).excludes(path) is excluded


@pytest.mark.parametrize("pattern", ["[", "a[", "[]a]", "[a", "a\\", "[-]", "!"])
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(InvalidParameter):
        IgnoreRules([pattern])


def test_ignore_file() -> None:
    content = "\ufeff# comment\n\n  a/ \n!b\n! c/../d\n/e\n /\n #kept\n".encode()
    assert read_ignore_file(content) == ["a", "!b", "!d", "e", "/", "#kept"]


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "a", True),
        ("*", "a/b", False),
        ("a*b", "axxb", True),
        ("a[0-9]", "a5", True),
        ("a[^0-9]", "a5", False),
        ("a\\[", "a[", True),
        ("[b-a]", "a", False),
        ("?", "ä", True),
    ],
)
def test_go_match(pattern: str, name: str, matches: bool) -> None:
    assert go_match(pattern, name) is matches


def test_wildcards() -> None:
    assert has_wildcards("a*") and has_wildcards("a[b]") and has_wildcards("\\*?")
    assert not has_wildcards("a\\*b") and not has_wildcards("ab")


def test_what_is_remembered_of_directories_stays_small() -> None:
    rules = IgnoreRules(["x" * 400_000, "a*"])
    tracemalloc.start()
    try:
        assert all(rules.excludes(f"a{number}/f") for number in range(2000))
        assert tracemalloc.get_traced_memory()[1] < 96 << 20
    finally:
        tracemalloc.stop()
