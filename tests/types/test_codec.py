"""JSON as Go reads and writes it."""

from __future__ import annotations

import pytest

from longshore.errors import InvalidParameter
from longshore.types import codec
from longshore.types.codec import ApiStruct, names


class Inner(ApiStruct):
    Count: int = 0
    Names: list[str] | None = None


class Outer(ApiStruct):
    _omitempty = names("Note Pointer")

    Inner: Inner | None = None
    Items: list[Inner] | None = None
    ByName: dict[str, Inner] | None = None
    Note: str = ""
    Pointer: int | None = None
    Flag: bool = False


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"{}", Outer()),
        (b'{"note": "x", "FLAG": true}', Outer(Note="x", Flag=True)),
        (b'{"Note": null, "Flag": null, "Inner": null, "Unknown": {"deep": [1]}}', Outer()),
        (b'{"items": [{"count": 3, "NAMES": null}]}', Outer(Items=[Inner(3)])),
        (
            b'{"ByName": {"Key": {"count": 1}, "key": {"count": 2}}}',
            Outer(ByName={"Key": Inner(1), "key": Inner(2)}),
        ),
        (b'{"Pointer": 0}', Outer(Pointer=0)),
        (b'{"Pointer": 9223372036854775807}', Outer(Pointer=9223372036854775807)),
    ],
)
def test_decoding_forgives_what_go_forgives(raw: bytes, expected: Outer) -> None:
    assert codec.decode(raw, Outer) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"Inner": 1}',
        b'{"Note": 1}',
        b'{"Flag": "true"}',
        b'{"Pointer": 9223372036854775808}',
        b'{"Pointer": -9223372036854775809}',
        b'{"Items": [{"Count": 100000000000000000000}]}',
        b'{"Inner": ' * 5000 + b"1" + b"}" * 5000,
    ],
)
def test_what_go_refuses_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidParameter):
        codec.decode(raw, Outer)


def test_encoding_leaves_out_what_is_omitempty_and_nothing_else() -> None:
    assert codec.to_plain(Outer()) == {"Inner": None, "Items": None, "ByName": None, "Flag": False}
    full = codec.to_plain(Outer(Inner=Inner(), Pointer=0, Note="x"))
    assert full == {
        "Inner": {"Count": 0, "Names": None},
        "Items": None,
        "ByName": None,
        "Note": "x",
        "Pointer": 0,
        "Flag": False,
    }
