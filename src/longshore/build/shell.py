"""Quotes, escapes and variables in the words of a Dockerfile, by BuildKit's rules (dockerfile/shell)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from longshore.build.substitution import LONGEST, TOO_LONG, replace, trim_prefix, trim_suffix
from longshore.errors import InvalidParameter

_SPECIAL = "@*#?-$!0"


class Expanded(NamedTuple):
    """A text after expansion, and the words that it falls into where blanks are not quoted."""

    text: str
    words: list[str]


def expand(
    text: str,
    variables: Mapping[str, str],
    escape: str = "\\",
    *,
    raw_quotes: bool = False,
    raw_escapes: bool = False,
    quotes: bool = True,
    keep_unset: bool = False,
) -> Expanded:
    """Expand `text`. Raises InvalidParameter, worded as Docker words it.

    `raw_quotes` and `raw_escapes` keep those characters, without `quotes` they are ordinary ones, and
    `keep_unset` leaves variables alone that have no value.
    """
    lexer = _Lexer(text, variables, escape, raw_quotes, raw_escapes, quotes, keep_unset)
    try:
        return lexer.until("")
    except RecursionError:
        raise InvalidParameter("failed to process a word: substitutions are nested too deep") from None
    except (_Bad, InvalidParameter) as exc:
        raise InvalidParameter(f"failed to process {go_quote(text)}: {exc}") from None


def expand_word(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Expand a text that stays one word, whatever blanks its variables hold. Raises InvalidParameter."""
    return expand(text, variables, escape).text


def environment(entries: list[str]) -> dict[str, str]:
    """`key=value` entries as a mapping; the last of a name counts."""
    pairs = (entry.partition("=") for entry in entries)
    return {key: value for key, _, value in pairs}


def go_quote(text: str) -> str:
    """A string as Go's %q prints it."""
    quoted = []
    for character in text:
        if character in _GO_ESCAPES:
            quoted.append(_GO_ESCAPES[character])
        elif character.isprintable():
            quoted.append(character)
        else:
            code = ord(character)
            quoted.append(f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}")
    return '"' + "".join(quoted) + '"'


_GO_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f",
    "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip


class _Bad(Exception):
    pass


class _Words:
    def __init__(self) -> None:
        self._done: list[str] = []
        self._word: list[str] = []

    def add(self, text: str) -> None:
        """Text whose blanks end words."""
        for character in text:
            if not character.isspace():
                self._word.append(character)
            else:
                self._end()

    def add_raw(self, text: str) -> None:
        if text:
            self._word.append(text)

    def all(self) -> list[str]:
        self._end()
        return self._done

    def _end(self) -> None:
        if self._word:
            self._done.append("".join(self._word))
            self._word.clear()


class _Lexer:
    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        escape: str,
        raw_quotes: bool,
        raw_escapes: bool,
        quotes: bool,
        keep_unset: bool,
    ) -> None:
        self._text = text
        self._at = 0
        self._variables = variables
        self._escape = escape
        self._raw_quotes = raw_quotes
        self._raw_escapes = raw_escapes
        self._quotes = quotes
        self._keep_unset = keep_unset
        self._inserted = 0

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._peek()
        self._at += len(character)
        return character

    def until(self, stop: str, raw_escapes: bool | None = None) -> Expanded:
        """Up to the character `stop`, which is consumed; "" is the end of the text."""
        outer = self._raw_escapes
        self._raw_escapes = outer if raw_escapes is None else raw_escapes
        try:
            return self._until(stop)
        finally:
            self._raw_escapes = outer

    def _until(self, stop: str) -> Expanded:
        result, words = "", _Words()
        while character := self._peek():
            if stop and character == stop:
                self._next()
                return Expanded(result, words.all())
            if character == "$":
                value = self._dollar()
                words.add(value)
                result += value
            elif self._quotes and character in "'\"":
                value = self._single() if character == "'" else self._double()
                words.add_raw(value)
                result += value
            elif character == self._escape:
                self._next()
                escaped = self._next()
                kept = (character if self._raw_escapes else "") + escaped
                words.add_raw(kept)
                result += kept
            else:
                self._next()
                words.add(character)
                result += character
        if stop:
            raise _Bad(f"unexpected end of statement while looking for matching {stop}")
        return Expanded(result, words.all())

    def _single(self) -> str:
        quote = self._next()
        end = self._text.find("'", self._at)
        if end < 0:
            self._at = len(self._text)
            raise _Bad("unexpected end of statement while looking for matching single-quote")
        content = self._text[self._at : end]
        self._at = end + 1
        return f"{quote}{content}{quote}" if self._raw_quotes else content

    def _double(self) -> str:
        quote = self._next()
        result = quote if self._raw_quotes else ""
        while character := self._peek():
            if character == '"':
                self._next()
                return result + (quote if self._raw_quotes else "")
            if character == "$":
                result += self._dollar()
                continue
            self._next()
            if character == self._escape:
                if self._raw_escapes:
                    result += character
                following = self._peek()
                if not following:
                    continue
                if following in ('"', "$", self._escape):
                    character = self._next()
                elif self._raw_escapes:
                    continue
            result += character
        raise _Bad("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        value = self._variable()
        self._inserted += len(value)
        if self._inserted > LONGEST:
            raise _Bad(TOO_LONG)
        return value

    def _variable(self) -> str:
        self._next()
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            return self._value(name, f"${name}")
        self._next()
        if not self._peek():
            raise _Bad("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise _Bad("syntax error: bad substitution")
        name = self._name()
        return self._substitution(name)

    def _substitution(self, name: str) -> str:
        modifier = self._next()
        if not modifier:
            raise _Bad("syntax error: missing '}'")
        if modifier == "}":
            return self._value(name, f"${{{name}}}")
        if modifier == "/":
            return self._replacement(name)
        null_is_unset = modifier == ":"
        kind = self._next() if null_is_unset else modifier
        told = f"{modifier}{kind}" if null_is_unset else kind
        if kind not in ("-", "+", "?", "#", "%") and not null_is_unset:
            raise _Bad(f"unsupported modifier ({told}) in substitution")
        word = self._operand("}", "}", raw_escapes=kind in ("#", "%"))
        value = self._variables.get(name)
        if value is None and self._keep_unset:
            return f"${{{name}{told}{word}}}"
        missing = value is None or (null_is_unset and not value)
        if kind == "-":
            return word if missing else value or ""
        if kind == "+":
            return "" if missing else word
        if kind == "?":
            if missing:
                why = "is not allowed to be unset" if value is None else "is not allowed to be empty"
                raise _Bad(f"{name}: {word or why}")
            return value or ""
        if kind in ("#", "%"):
            longest = word.startswith(kind)
            trim = trim_prefix if kind == "#" else trim_suffix
            return trim(value or "", word[1:] if longest else word, longest=longest)
        raise _Bad(f"unsupported modifier ({told}) in substitution")

    def _replacement(self, name: str) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self._next()
        pattern = self._operand("/", "/", in_braces=True)
        replacement = self._operand("}", "}")
        value = self._variables.get(name)
        if value is None and self._keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        return replace(value or "", pattern, replacement, everywhere=everywhere)

    def _operand(self, stop: str, missing: str, *, raw_escapes: bool = True, in_braces: bool = False) -> str:
        try:
            return self.until(stop, raw_escapes).text
        except _Bad:
            if not self._peek():
                where = " in ${}" if in_braces else ""
                raise _Bad(f"syntax error: missing '{missing}'{where}") from None
            raise

    def _name(self) -> str:
        first = self._peek()
        if first.isdigit():
            start = self._at
            while self._peek().isdigit():
                self._next()
            return self._text[start : self._at]
        if first and first in _SPECIAL:
            return self._next()
        start = self._at
        while (character := self._peek()) and (character.isalnum() or character == "_"):
            self._next()
        return self._text[start : self._at]

    def _value(self, name: str, unset: str) -> str:
        value = self._variables.get(name)
        if value is None:
            return unset if self._keep_unset else ""
        return value
