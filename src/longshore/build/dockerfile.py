"""From the text of a Dockerfile to its instructions' words: lines, comments, directives, here-documents.

Follows BuildKit's dockerfile/parser, whose reading of odd input is what existing files rely on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from longshore.build.shell import expand, go_quote
from longshore.errors import InvalidParameter

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_BLANKS = re.compile(r"[\t\v\f\r ]+")
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+)")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)")
_DIRECTIVES = frozenset(("escape", "syntax", "check"))
_LONGEST = 16 << 20
"""Bytes of a Dockerfile; read whole."""
_MOST_INSTRUCTIONS = 10_000

NOT_STRINGS = "when using JSON array syntax, arrays must be comprised of strings only"


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A file written in the Dockerfile itself. `chomp` asks for leading tabs to go."""

    name: str
    content: str
    expand: bool
    chomp: bool

    @property
    def text(self) -> str:
        """The content as it is meant."""
        if not self.chomp:
            return self.content
        return "".join(line.lstrip("\t") for line in _LINES.findall(self.content))


@dataclass(slots=True)
class Node:
    """One instruction: its word in lower case, its flags and arguments, and its text as it is shown."""

    word: str
    text: str
    flags: list[str]
    args: list[str]
    json: bool
    line: int
    heredocs: list[Heredoc] = field(default_factory=list)


@dataclass(slots=True)
class Dockerfile:
    """What was read, with the escape character that the file chose."""

    nodes: list[Node]
    escape: str
    warnings: list[str]


def parse(content: bytes, name: str = "Dockerfile") -> Dockerfile:
    """Raises InvalidParameter, which tells the file's `name` unless it has none."""
    try:
        return _parse(content)
    except InvalidParameter as exc:
        if not name:
            raise
        raise InvalidParameter(f"failed to parse {name}: {exc}") from None


def _parse(content: bytes) -> Dockerfile:
    if len(content) > _LONGEST:
        raise InvalidParameter("the Dockerfile is too large")
    text = content.decode("utf-8", "surrogateescape").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    reader = _Reader(text)
    nodes = list(reader.instructions())
    if not nodes:
        raise InvalidParameter("file with no instructions")
    warnings = reader.warnings
    if warnings:
        warnings.append("[WARNING]: Empty continuation lines will become errors in a future release.")
    return Dockerfile(nodes, reader.escape, warnings)


def parse_line(line: str, escape: str, number: int = 0) -> Node:
    """One instruction by itself, as a trigger of ONBUILD is. Raises InvalidParameter."""
    first, *rest = line.split("\n")
    node = _node(first, escape, number)
    if rest and "<<" in first:
        _take_heredocs(node, iter(f"{each}\n" for each in rest))
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self.escape = "\\"
        self.warnings: list[str] = []
        self._lines = (found[0] for found in _LINES.finditer(text))
        self._number = 0
        self._seen: set[str] = set()
        self._directives_done = False

    def instructions(self) -> Iterator[Node]:
        for count, (line, number) in enumerate(self._logical_lines()):
            if count >= _MOST_INSTRUCTIONS:
                raise InvalidParameter("the Dockerfile has too many instructions")
            node = _node(line, self.escape, number)
            if "<<" in line:
                _take_heredocs(node, self._counted())
            yield node

    def _counted(self) -> Iterator[str]:
        for line in self._lines:
            self._number += 1
            yield line

    def _logical_lines(self) -> Iterator[tuple[str, int]]:
        """Continued lines joined, without comments and empty lines, each with the number of its first."""
        for raw in self._counted():
            number = self._number
            line = _without_end(raw).lstrip()
            self._directive(line)
            if line.startswith("#"):
                line = ""
            line, more = self._continuation(line)
            if not more and not line:
                continue
            empty = False
            while more and (following := next(self._counted(), None)) is not None:
                following = _without_end(following)
                if following.lstrip().startswith("#"):
                    continue
                if not following.strip():
                    empty = True
                    continue
                part, more = self._continuation(following)
                line += part
            if empty:
                self.warnings.append(f"[WARNING]: Empty continuation line found in:\n    {line}")
            yield line, number

    def _continuation(self, line: str) -> tuple[str, bool]:
        """The line without its escape character at the end, and whether there was one that counts."""
        bare = line.rstrip(" \t")
        if not bare.endswith(self.escape) or bare.endswith(self.escape * 2):
            return line, False
        return bare[:-1], True

    def _directive(self, line: str) -> None:
        if self._directives_done:
            return
        found = _DIRECTIVE.fullmatch(line.rstrip())
        name = found[1].lower() if found else ""
        if found is None or name not in _DIRECTIVES:
            self._directives_done = True
            return
        if name in self._seen:
            raise InvalidParameter(f"only one {name} parser directive can be used")
        self._seen.add(name)
        if name == "escape":
            if found[2] not in ("\\", "`"):
                raise InvalidParameter(f"invalid escape token '{found[2]}' does not match ` or \\")
            self.escape = found[2]


def _without_end(line: str) -> str:
    return line.rstrip("\r\n")


def _node(line: str, escape: str, number: int) -> Node:
    word, rest = _split(line)
    flags, rest = _flags(rest)
    word = word.lower()
    args, is_json = _arguments(word, rest.strip(), escape)
    return Node(word, line, flags, args, is_json, number)


def _split(text: str) -> tuple[str, str]:
    """The first word and what follows it."""
    parts = _BLANKS.split(text.strip(), maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else ""


def _take_heredocs(node: Node, lines: Iterator[str]) -> None:
    subject = node
    if node.word == "onbuild" and node.args:
        subject = parse_line(node.args[0], "\\")
    if subject.word not in ("add", "copy", "run") or subject.json:
        return
    for named in heredocs_in(subject.text):
        content: list[str] = []
        for line in lines:
            end = _without_end(line)
            if (end.lstrip("\t") if named.chomp else end) == named.name:
                break
            content.append(line)
        else:
            raise InvalidParameter("unterminated heredoc")
        node.heredocs.append(Heredoc(named.name, "".join(content), named.expand, named.chomp))


def heredocs_in(line: str) -> list[Heredoc]:
    """The here-documents that a line announces, without content."""
    words = expand(line, {}, raw_quotes=True, raw_escapes=True, keep_unset=True).words
    return [found for word in words if (found := heredoc(word)) is not None]


def heredoc(word: str) -> Heredoc | None:
    """`<<EOF`, `<<-EOF`, `<<"EOF"` or `3<<EOF`, or None if the word is something else."""
    matched = _HEREDOC.fullmatch(word)
    if matched is None or not matched[3]:
        return None
    plain = expand(matched[3], {}, keep_unset=True).words
    quoted = expand(matched[3], {}, raw_quotes=True, raw_escapes=True, keep_unset=True).words
    if len(plain) != 1:
        return None
    return Heredoc(plain[0], "", expand=plain == quoted, chomp=bool(matched[2]))


def _flags(rest: str) -> tuple[list[str], str]:
    """The `--flags` in front of an instruction's arguments, unquoted, and the rest."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(rest) and rest[at].isspace():
            at += 1
        if not rest.startswith("--", at):
            return flags, rest[at:]
        word: list[str] = []
        quote = ""
        while at < len(rest):
            character = rest[at]
            if not quote and character.isspace():
                break
            if character == quote:
                quote = ""
            elif not quote and character in "'\"":
                quote = character
            else:
                if character == "\\":
                    at += 1
                    character = rest[at : at + 1]
                word.append(character)
            at += 1
        if word == ["-", "-"]:
            return flags, rest[at:]
        flags.append("".join(word))


def _arguments(word: str, rest: str, escape: str) -> tuple[list[str], bool]:
    if word in ("env", "label"):
        return _name_values(rest, word.upper(), escape), False
    if word == "arg":
        return words_of(rest, escape), False
    if word in ("cmd", "entrypoint", "run", "shell"):
        found = _json_words(rest)
        return ([rest] if rest else [], False) if found is None else (found, True)
    if word in ("add", "copy", "volume"):
        found = _json_words(rest)
        return (_BLANKS.split(rest) if rest else [], False) if found is None else (found, True)
    if word in ("expose", "from"):
        return (_BLANKS.split(rest) if rest else []), False
    if word == "healthcheck":
        kind, command = _split(rest)
        found = _json_words(command)
        if found is None:
            return [each for each in (kind, command) if each], False
        return [kind, *found], True
    return ([rest] if rest else []), False


def _json_words(rest: str) -> list[str] | None:
    """The words of a JSON array, None for anything else. Raises InvalidParameter if not all are strings."""
    if not rest.lstrip().startswith("["):
        return None
    try:
        found = msgspec.json.decode(rest.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, RecursionError):
        return None
    if not all(isinstance(each, str) for each in found):
        raise InvalidParameter(NOT_STRINGS)
    return list(found)


def words_of(rest: str, escape: str) -> list[str]:
    """Words apart at blanks that are not quoted; quotes and escapes are kept for the expansion."""
    words: list[str] = []
    word: list[str] = []
    quote, started, at = "", False, 0
    while at < len(rest):
        character = rest[at]
        if not quote and character.isspace():
            if started:
                words.append("".join(word))
            word, started = [], False
            at += 1
            continue
        started = True
        if not quote and character in "'\"":
            quote = character
        elif character == quote:
            quote = ""
        elif character == escape and quote != "'":
            if at + 1 == len(rest):
                break  # an escape at the very end is nothing
            word.append(character)
            at += 1
            character = rest[at]
        word.append(character)
        at += 1
    if started:
        words.append("".join(word))
    return words


def _name_values(rest: str, instruction: str, escape: str) -> list[str]:
    """`name=value` words as names and values in turn; the old form `NAME the rest` too."""
    words = words_of(rest, escape)
    if not words:
        return []
    if "=" not in words[0]:
        parts = _BLANKS.split(rest, maxsplit=1)
        if len(parts) < 2:
            raise InvalidParameter(f"{instruction} must have two arguments")
        return parts
    pairs: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(
                f"Syntax error - can't find = in {go_quote(word)}. Must be of the form: name=value"
            )
        pairs += [name, value]
    return pairs
