"""Reading Dockerfiles: lines, directives, here-documents, instructions, stages."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from longshore.build.dockerfile import parse
from longshore.build.instructions import Copy, Healthcheck, Instruction, Run, read_instruction
from longshore.build.stages import find_stage, needed_stages, read_program, target_stage
from longshore.errors import InvalidParameter


def nodes(text: str) -> list[tuple[str, list[str], list[str]]]:
    return [(node.word, node.flags, node.args) for node in parse(text.encode()).nodes]


def instruction(text: str) -> Instruction:
    return read_instruction(parse(text.encode()).nodes[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\n", [("from", [], ["a"])]),
        ("from a", [("from", [], ["a"])]),
        ("\ufeffFROM a\n", [("from", [], ["a"])]),
        ("FROM a\r\nRUN b\r\n", [("from", [], ["a"]), ("run", [], ["b"])]),
        ("  # c\n\n  FROM\ta\v AS  b\n", [("from", [], ["a", "AS", "b"])]),
        ("RUN a \\\n  b\n", [("run", [], ["a   b"])]),
        ("RUN a \\  \n# c\n  # d\nb\n", [("run", [], ["a b"])]),
        ("RUN a \\\n\nb\n", [("run", [], ["a b"])]),
        ("RUN a \\\\\nENV b=c\n", [("run", [], ["a \\\\"]), ("env", [], ["b", "c"])]),
        ("RUN a \\", [("run", [], ["a"])]),
        ("RUN a # b\n", [("run", [], ["a # b"])]),
        ('RUN ["a", "b"]\n', [("run", [], ["a", "b"])]),
        ("RUN ['a']\n", [("run", [], ["['a']"])]),
        ('RUN ["a" "b"]\n', [("run", [], ['["a" "b"]'])]),
        ("RUN --mount=type=cache,target=/a --network=none b --c\n",
         [("run", ["--mount=type=cache,target=/a", "--network=none"], ["b --c"])]),
        ('COPY --from="a b" --chown=\'c\' d e\n', [("copy", ["--from=a b", "--chown=c"], ["d", "e"])]),
        ("COPY -- --a b\n", [("copy", [], ["--a", "b"])]),
        ("ENV a=b c=\"d e\" f='g h' i=j\\ k\n",
         [("env", [], ["a", "b", "c", '"d e"', "f", "'g h'", "i", "j\\ k"])]),
        ("ENV a b c\n", [("env", [], ["a", "b c"])]),
        ("ENV a=\n", [("env", [], ["a", ""])]),
        ("ARG a b=c d=\"e f\"\n", [("arg", [], ["a", "b=c", 'd="e f"'])]),
        ("HEALTHCHECK --interval=1s CMD [\"a\"]\n", [("healthcheck", ["--interval=1s"], ["CMD", "a"])]),
        ("HEALTHCHECK CMD a b\n", [("healthcheck", [], ["CMD", "a b"])]),
        ("# escape=`\nRUN a `\nb\\\n", [("run", [], ["a b\\"])]),
        ("# syntax=x\n# escape=`\n# check=skip=all\nRUN a`\nb\n", [("run", [], ["ab"])]),
        ("# comment\n# escape=`\nRUN a`\n", [("run", [], ["a`"])]),
    ],
)  # fmt: skip
def test_lines(text: str, expected: list[Any]) -> None:
    assert nodes(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "file with no instructions"),
        ("# escape=x\nFROM a\n", "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM a\n", "only one escape parser directive can be used"),
        ("ENV a\n", "ENV must have two arguments"),
        ("ENV a=b c\n", 'Syntax error - can\'t find = in "c". Must be of the form: name=value'),
        ("RUN [1]\n", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("RUN <<E\nno end\n", "unterminated heredoc"),
    ],
)
def test_what_cannot_be_parsed(text: str, problem: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse(text.encode())
    assert caught.value.message == f"failed to parse Dockerfile: {problem}"


def test_empty_continuation_lines_are_warned_of() -> None:
    assert "Empty continuation line found in:\n    RUN a b" in parse(b"RUN a \\\n\nb\n").warnings[0]


def test_here_documents() -> None:
    (node, after) = parse(b"COPY <<A <<-'B' /d\n$x\nA\n\ta\n\t\tb\n\tB\nRUN c\n").nodes
    assert [(each.name, each.text, each.expand) for each in node.heredocs] == [
        ("A", "$x\n", True),
        ("B", "a\nb\n", False),
    ]
    assert after.args == ["c"]


@pytest.mark.parametrize("text", ["RUN a <<<b\n", "RUN echo '<<E'\n", 'RUN ["a", "<<E"]\n', "CMD a <<E\n"])
def test_what_is_no_here_document(text: str) -> None:
    assert parse(text.encode()).nodes[0].heredocs == []


def test_copy() -> None:
    found = instruction(
        "COPY --from=x --chown=a:b --chmod=1 --link --exclude=c --exclude=d --parents e f g/\n"
    )
    assert isinstance(found, Copy)
    assert (found.origin, found.chown, found.chmod, found.link, found.parents) == (
        "x",
        "a:b",
        "1",
        True,
        True,
    )
    assert (found.exclude, found.sources, found.destination) == (["c", "d"], ["e", "f"], "g/")


def test_run_mounts() -> None:
    found = instruction(
        "RUN --mount=target=/a,rw --mount=type=cache,id=b,dst=/c,sharing=locked,mode=0700,uid=1,gid=2 "
        "--mount=type=tmpfs,target=/t,size=64m --mount=type=secret,id=s,required=true d\n"
    )
    assert isinstance(found, Run)
    bind, cache, tmpfs, secret = found.mounts
    assert (bind.kind, bind.target, bind.read_only) == ("bind", "/a", False)
    assert (cache.id, cache.target, cache.sharing, cache.mode, cache.uid, cache.gid) == (
        "b", "/c", "locked", 0o700, 1, 2,
    )  # fmt: skip
    assert tmpfs.size == 64 << 20
    assert (secret.id, secret.required) == ("s", True)


def test_healthcheck() -> None:
    found = instruction("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD a b\n")
    assert isinstance(found, Healthcheck)
    check = found.check
    assert (check.Test, check.Interval, check.Timeout, check.Retries) == (
        ["CMD-SHELL", "a b"], 90 * 10**9, 5 * 10**8, 3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("NOPE a\n", "unknown instruction: NOPE"),
        ("FROM\n", "FROM requires either one or three arguments"),
        (
            "FROM a AS 1b\n",
            'invalid name for build stage: "1b", name can\'t start with a number or contain symbols',
        ),
        (
            "COPY a\n",
            "COPY requires at least two arguments, but only one was provided. "
            "Destination could not be determined",
        ),
        ("COPY --nope=a b c\n", "unknown flag: nope"),
        ("COPY --from b c\n", "missing a value on flag: from"),
        ("COPY --from=a --from=b c d\n", "duplicate flag specified: from"),
        ("COPY --link=x c d\n", "expecting boolean value for flag link, not: x"),
        ("ADD --from=a b c\n", "unknown flag: from"),
        ("ONBUILD ONBUILD RUN a\n", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM a\n", "FROM isn't allowed as an ONBUILD trigger"),
        ("SHELL a\n", "SHELL requires the arguments to be in JSON form"),
        ("USER\n", "USER requires exactly one argument"),
        ("VOLUME [\"\"]\n", "VOLUME specified can not be an empty string"),
        ("HEALTHCHECK NONE a\n", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD\n", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=1ns CMD a\n", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --retries=-1 CMD a\n", "--retries cannot be negative (-1)"),
        ("RUN --mount=type=nope a\n", 'unsupported mount type "nope"'),
        ("RUN --mount=type=bind a\n", "target can't be empty"),
        ("RUN --mount=type=cache,target=/ a\n", 'invalid mount target "/"'),
        ("RUN --mount=target=/a,nope=b a\n", "unexpected key 'nope' in 'nope=b'"),
        ("RUN --network=nope a\n", "invalid network mode: nope"),
        ("ARG =a\n", "ARG names can not be blank"),
        ("EXPOSE\n", "EXPOSE requires at least one argument"),
    ],
)  # fmt: skip
def test_what_is_no_instruction(text: str, problem: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        instruction(text)
    assert caught.value.message == problem


def test_stages_that_are_needed() -> None:
    program = read_program(
        parse(
            b"ARG A=x\nFROM b AS one\nFROM b AS two\nFROM two AS three\nCOPY --from=0 a b\n"
            b"FROM b AS four\nRUN --mount=from=three,target=/a b\nFROM four\nFROM one\n"
        )
    )
    assert len(program.arguments) == 1
    needs = needed_stages(program.stages, program.stages[4], lambda stage: stage.begin.base)
    assert needs == {0: set(), 1: set(), 2: {0, 1}, 3: {2}, 4: {3}}
    assert target_stage(program.stages, "THREE").index == 2
    assert target_stage(program.stages, "1").index == 1
    assert target_stage(program.stages, "").index == 5
    assert find_stage(program.stages, "9") is None
    with pytest.raises(InvalidParameter, match="failed to reach build target nope in Dockerfile"):
        target_stage(program.stages, "nope")


def test_an_instruction_before_the_first_from() -> None:
    with pytest.raises(InvalidParameter, match="dockerfile parse error on line 2: no build stage"):
        read_program(parse(b"ARG A\nRUN a\n"))


@pytest.mark.parametrize(
    "content",
    [
        "# escape=\\" + " " * 400_000 + "x\nFROM a\n",
        "FROM a\nENV A=" + "x" * 1_000_000 + "\n",
        "FROM a\nRUN " + "--a=b" * 100_000 + " true\n",
    ],
    ids=["directive", "word", "flag"],
)
def test_long_lines_take_as_long_as_they_are(content: str) -> None:
    """Not the square of it: nobody would wait for these."""
    with suppress(InvalidParameter):
        parse(content.encode())
