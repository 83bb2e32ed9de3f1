"""Expansion of words: quotes, escapes, and every form of substitution."""

from __future__ import annotations

import pytest

from longshore.build.shell import expand, expand_word, go_quote
from longshore.errors import InvalidParameter

VARIABLES = {"X": "foo.bar.baz", "E": "", "P": "/usr/local/bin", "S": "a b  c", "ä": "umlaut", "Q": "\\}/"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$X", "foo.bar.baz"),
        ("${X}", "foo.bar.baz"),
        ("a$X-b", "afoo.bar.baz-b"),
        ("$Xy$U", ""),
        ("$", "$"),
        ("a$", "a$"),
        ("$.", "$."),
        ("$1$12x", "x"),
        ("$ä", "umlaut"),
        ("\\$X", "$X"),
        ("\\\\$X", "\\foo.bar.baz"),
        ("a\\", "a"),
        ("a\\ b", "a b"),
        ("'$X'", "$X"),
        ('"$X"', "foo.bar.baz"),
        ('"\\$X \\" \\a"', '$X " \\a'),
        ('"it\'s"', "it's"),
        ("'a\"b'", 'a"b'),
        ("${U:-d}", "d"),
        ("${U-d}", "d"),
        ("${E:-d}", "d"),
        ("${E-d}", ""),
        ("${X:-d}", "foo.bar.baz"),
        ("${U:-$X}", "foo.bar.baz"),
        ("${U:-${E:-deep}}", "deep"),
        ("${U:-'}'}", "}"),
        ("${X:+d}", "d"),
        ("${E:+d}", ""),
        ("${E+d}", "d"),
        ("${U+d}", ""),
        ("${X:?m}", "foo.bar.baz"),
        ("${E?m}", ""),
        ("${X#*.}", "bar.baz"),
        ("${X##*.}", "baz"),
        ("${X%.*}", "foo.bar"),
        ("${X%%.*}", "foo"),
        ("${X#nope}", "foo.bar.baz"),
        ("${X%nope}", "foo.bar.baz"),
        ("${X#fo?}", ".bar.baz"),
        ("${X%%?}", "foo.bar.ba"),
        ("${U#x}", ""),
        ("${P##*/}", "bin"),
        ("${X/ba/BA}", "foo.BAr.baz"),
        ("${X//ba/BA}", "foo.BAr.BAz"),
        ("${X//./-}", "foo-bar-baz"),
        ("${X/nope/y}", "foo.bar.baz"),
        ("${X//[/y}", "foo.bar.baz"),
        ("${P//\\//:}", ":usr:local:bin"),
        ("${X/*/all}", "all"),
        ("${X//o/\\1}", "f\\1\\1.bar.baz"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand_word(text, VARIABLES) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("'open", "looking for matching single-quote"),
        ('"open', "looking for matching double-quote"),
        ("${X", "missing '}'"),
        ("${", "missing '}'"),
        ("${}", "bad substitution"),
        ("${{X}", "bad substitution"),
        ("${:X}", "bad substitution"),
        ("${X!y}", "unsupported modifier (!)"),
        ("${X:y}", "unsupported modifier (:y)"),
        ("${X:-y", "missing '}'"),
        ("${X/y}", "missing '/' in ${}"),
        ("${X/y/z", "missing '}'"),
        ("${U:?}", "U: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${U?needs a value}", "U: needs a value"),
        ("${X#\\a}", "invalid escape"),
    ],
)
def test_what_cannot_be_expanded(text: str, problem: str) -> None:
    with pytest.raises(InvalidParameter, match="failed to process") as caught:
        expand_word(text, VARIABLES)
    assert problem in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$S", ["a", "b", "c"]),
        ('"$S"', ["a b  c"]),
        ("x$S'y z'", ["xa", "b", "cy z"]),
        ("  a  b ", ["a", "b"]),
        ("a\\ b", ["a b"]),
        ("$U", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert expand(text, VARIABLES).words == words


def test_another_escape_character() -> None:
    assert expand_word("c:\\x`$X`` $E", VARIABLES, "`") == "c:\\x$X` "


def test_text_without_quotes() -> None:
    assert expand('it\'s "$X" \\$X', VARIABLES, quotes=False).text == 'it\'s "foo.bar.baz" $X'


def test_variables_that_stay() -> None:
    assert expand("$U ${U} ${U:-d} $X", VARIABLES, keep_unset=True).text == "$U ${U} ${U:-d} foo.bar.baz"


@pytest.mark.parametrize(
    ("text", "quoted"), [("a", '"a"'), ('a"b\\', '"a\\"b\\\\"'), ("\n\t\x01", '"\\n\\t\\x01"'), ("ä", '"ä"')]
)
def test_quoting_as_go(text: str, quoted: str) -> None:
    assert go_quote(text) == quoted


def test_variables_that_double_with_each_line() -> None:
    value = "x" * 64
    with pytest.raises(InvalidParameter, match="too long once its variables are expanded"):
        for _ in range(64):
            value = expand_word("$X$X$X$X$X$X$X$X", {"X": value})
