"""Wildcards: what regular expressions say of the same patterns, and patterns made to take for ever."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshore.build.patterns import IgnoreRules, go_match
from longshore.build.substitution import LONGEST, replace, trim_prefix, trim_suffix
from longshore.errors import InvalidParameter

PIECES = ["a", "b", "/", "*", "**", "**/", "?", "[^a]", "[ab]", "[b-a]", "\\*", "\\b", "-"]
PATTERNS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join)
NAMES = st.text("ab*-", min_size=1, max_size=4)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
SHELL = st.lists(st.sampled_from(["a", "b", "*", "?", "\\*", "."]), max_size=5).map("".join)
VALUES = st.text("ab*.\n", max_size=9)


def as_regex(pattern: str, *, depth: bool) -> str:
    """How Docker translates a pattern of .dockerignore, and without `depth` one of filepath.Match."""
    if depth and pattern.endswith("**") and not re.search(r"[*?\[\\]", pattern[:-2]):
        return re.escape(pattern[:-2]) + ".*"
    if depth and pattern.startswith("**") and not re.search(r"[*?\[\\]", pattern[2:]):
        return f".*{re.escape(pattern[2:])}|{re.escape(pattern[2:].removeprefix('/'))}"
    piece = re.compile(r"(\*\*/?)|(\*)|(\?)|\[(\^?)(.-.|.+?)\]|\\(.)|(.)", re.DOTALL)
    out, at = "", 0
    while at < len(pattern):
        found = piece.match(pattern, at)
        assert found
        at = found.end()
        if found[1] and not depth:
            at = found.start() + 1
            out += "[^/]*"
        elif found[1]:
            out += "(?:.*/)?" if at < len(pattern) else ".*"
        elif found[2] or found[3]:
            out += "[^/]*" if found[2] else "[^/]"
        elif found[5]:
            out += "(?!)" if found[5] == "b-a" else f"[{found[4]}{found[5]}]"
        else:
            out += re.escape(found[6] or found[7])
    return out


@settings(max_examples=600, deadline=None)
@given(st.lists(PATTERNS, min_size=1, max_size=4), st.lists(PATHS, min_size=1, max_size=6))
def test_ignore_rules_are_what_their_regular_expressions_are(patterns: list[str], paths: list[str]) -> None:
    from longshore.build.patterns import clean

    rules = IgnoreRules(patterns)
    expected = [re.compile(as_regex(clean(each), depth=True), re.DOTALL) for each in patterns]
    for path in paths:
        parts = path.split("/")
        parents = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        assert rules.excludes(path) == any(rule.fullmatch(each) for rule in expected for each in parents)


@settings(max_examples=600, deadline=None)
@given(PATTERNS, PATHS)
def test_go_match_is_what_its_regular_expression_is(pattern: str, path: str) -> None:
    assert go_match(pattern, path) == bool(re.fullmatch(as_regex(pattern, depth=False), path, re.DOTALL))


def shell_regex(pattern: str, star: str = ".*") -> re.Pattern[str]:
    pieces = re.findall(r"\\.|.", pattern)
    return re.compile("".join({"*": star, "?": "."}.get(each) or re.escape(each[-1]) for each in pieces))


@settings(max_examples=600, deadline=None)
@given(SHELL, VALUES)
def test_substitutions_are_what_their_regular_expressions_are(pattern: str, value: str) -> None:
    greedy, lazy = shell_regex(pattern), shell_regex(pattern, ".*?")
    found = greedy.match(value)
    assert trim_prefix(value, pattern, longest=True) == (value[found.end() :] if found else value)
    found = lazy.match(value)
    assert trim_prefix(value, pattern, longest=False) == (value[found.end() :] if found else value)
    ends = [at for at in range(len(value) + 1) if greedy.fullmatch(value, at)]
    assert trim_suffix(value, pattern, longest=True) == (value[: ends[0]] if ends else value)
    assert trim_suffix(value, pattern, longest=False) == (value[: ends[-1]] if ends else value)
    assert replace(value, pattern, "<>", everywhere=False) == greedy.sub("<>", value, count=1)
    if not greedy.fullmatch(""):  # Go, unlike Python, finds nothing right behind a match.
        assert replace(value, pattern, "<>", everywhere=True) == greedy.sub("<>", value)


def test_nothing_is_found_right_behind_a_match() -> None:
    assert replace("abc", "*", "x", everywhere=True) == "x"
    assert replace("", "*", "x", everywhere=True) == "x"
    assert replace("a\nb", "*", "x", everywhere=True) == "x\nx"


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 200 + "b", "**/a" * 200 + "b", "a**" * 200 + "b", "*[^b]" * 300 + "b", "**/*?" * 200 + "b"],
)
def test_patterns_that_would_take_for_ever(pattern: str) -> None:
    """With a regular expression none of them ends within a lifetime."""
    rules = IgnoreRules([pattern])
    assert not rules.excludes("a" * 4000)
    assert not rules.excludes("a/" * 1000 + "a")
    assert not go_match(pattern.replace("**", "*"), "a" * 4000)
    shell = pattern.replace("[^b]", "a").replace("**", "*")
    value = "a/" * 2000
    assert trim_prefix(value, shell, longest=True) == value
    assert trim_suffix(value, shell, longest=False) == value
    assert replace(value, shell, "", everywhere=True) == value


def test_values_do_not_grow_for_ever() -> None:
    with pytest.raises(InvalidParameter, match="too long"):
        replace("a" * 10_000, "a", "x" * (LONGEST // 5_000), everywhere=True)
