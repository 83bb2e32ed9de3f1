"""DNS messages, of friends and of others."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from longshore.network import dnsmessage
from longshore.network.dnsmessage import Query

LABEL = st.binary(min_size=1, max_size=63)
NAME = st.lists(LABEL, max_size=4).filter(lambda labels: sum(map(len, labels)) + len(labels) < 255)
HEADER = struct.Struct("!HHHHHH")


def wire(labels: list[bytes]) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def question(labels: list[bytes], kind: int = 1, size: int = 0) -> bytes:
    message = HEADER.pack(7, 0x0100, 1, 0, 0, int(size > 0)) + wire(labels) + struct.pack("!HH", kind, 1)
    return message + (b"\0" + struct.pack("!HHIH", 41, size, 0, 0) if size else b"")


def decode(message: bytes) -> tuple[int, bytes, list[tuple[int, bytes]]]:
    """Flags, the question's name on the wire, kinds and data of all answers; every byte must belong to it."""
    _, flags, questions, answers, authorities, additional = HEADER.unpack_from(message)
    assert questions == 1 and authorities == additional == 0
    offset = HEADER.size
    while message[offset]:
        offset += 1 + message[offset]
    name = message[HEADER.size : offset + 1]
    offset += 5
    records = []
    for _ in range(answers):
        assert message[offset : offset + 2] == b"\xc0\x0c"  # the question's name
        kind, family, _, length = struct.unpack_from("!HHIH", message, offset + 2)
        assert family == 1
        offset += 12 + length
        records.append((kind, message[offset - length : offset]))
    assert offset == len(message)
    return flags, name, records


@given(
    st.binary(max_size=600)
    | st.builds(lambda head, rest: head + rest, st.binary(max_size=14), NAME.map(wire))
)
@example(HEADER.pack(1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1")  # a name that points to itself
@example(HEADER.pack(1, 0, 1, 0, 0, 0) + b"\x3fa")
@example(HEADER.pack(1, 0, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 1000 + b"\0\0\1\0\1")
@example(HEADER.pack(1, 0x8000, 1, 0, 0, 0) + b"\0\0\1\0\1")
def test_nonsense_is_survived(message: bytes) -> None:
    query = dnsmessage.parse(message)
    refusal = dnsmessage.refusal(message)
    is_reply = len(message) > 2 and message[2] & 0x80
    assert (refusal is None) == (len(message) < HEADER.size or bool(is_reply))
    if refusal is not None:
        assert refusal[:2] == message[:2] and refusal[2] & 0x80 and refusal[3] & 15 in (1, 4)
        assert dnsmessage.parse(refusal) is None and dnsmessage.refusal(refusal) is None
    if query is not None:
        assert not is_reply and len(query.wire) <= 255 + 4
        reply = dnsmessage.answer(query, [])
        assert decode(reply)[1] + reply[-4:] == query.wire and dnsmessage.matches(query, reply)
        dnsmessage.reverse_address(query.name)
    other = Query(1, 0, "a", 1, b"\1a\0\0\1\0\1")
    assert dnsmessage.is_final(message) in (True, False) and dnsmessage.matches(other, message) in (
        True,
        False,
    )


@given(NAME, st.sampled_from([1, 12, 28, 255]), st.integers(0, 65535))
def test_a_question_is_read(labels: list[bytes], kind: int, size: int) -> None:
    query = dnsmessage.parse(question(labels, kind, size))
    assert query is not None and query.type == kind and query.size == max(size, 512)
    assert query.name == ".".join(label.decode("ascii", "replace").lower() for label in labels)
    assert dnsmessage.parse(question([*labels, b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 63])) is None


@given(
    st.lists(st.ip_addresses().map(str), unique=True, max_size=5000),
    st.integers(0, 65535),
    NAME,
)
@example([str(ip_address(i)) for i in range(5000)], 65535, [b"all"])
def test_answers_fit_and_say_so_when_they_do_not(
    addresses: list[str], size: int, labels: list[bytes]
) -> None:
    query = dnsmessage.parse(question(labels, 1, size))
    assert query is not None
    records = [dnsmessage.address_record(address) for address in addresses]
    wanted = [ip_address(address).packed for address in addresses]
    for reply, most in (
        (dnsmessage.datagram(query, records), min(max(size, 512), 4096)),
        (dnsmessage.answer(query, records), 65535),
    ):
        flags, name, found = decode(reply)
        assert len(reply) <= most and name == wire(labels)
        assert [data for _, data in found] == wanted[: len(found)]
        assert {(kind, len(data)) for kind, data in found} <= {(1, 4), (28, 16)}
        assert bool(flags & 0x0200) == (len(found) < len(wanted))
    long = dnsmessage.answer(query, records)
    relayed = dnsmessage.as_datagram(query, long)
    assert len(relayed) <= max(size, 512) and (relayed == long or relayed[2] & 2)


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789_.-", max_size=300))
@example("a" * 64 + ".net")
@example("a" * 300)
@example(".".join(["a" * 63] * 4))
def test_names_that_are_too_long_have_no_pointer(name: str) -> None:
    for record in dnsmessage.pointer_records(name):
        data, offset, labels = record[12:], 0, []
        while length := data[offset]:
            assert length < 64
            labels.append(data[offset + 1 : offset + 1 + length].decode())
            offset += 1 + length
        assert offset + 1 == len(data) <= 255 and labels == [part for part in name.split(".") if part]


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.1.in-addr.arpa", "1.2.3.4"),
        ("3.2.1.in-addr.arpa", ""),
        ("04.3.2.1.in-addr.arpa", ""),
        ("400.3.2.1.in-addr.arpa", ""),
        (".".join(reversed("fd000000000000000000000000000002")) + ".ip6.arpa", "fd00::2"),
        ("g" * 32 + ".ip6.arpa", ""),
        ("_1" * 16 + ".ip6.arpa", ""),
        ("in-addr.arpa", ""),
        ("", ""),
    ],
)
def test_addresses_backwards(name: str, address: str) -> None:
    assert dnsmessage.reverse_address(name) == address


def test_forged_replies_do_not_match() -> None:
    query = dnsmessage.parse(question([b"Example", b"org"]))
    assert query is not None
    good = dnsmessage.answer(query, [dnsmessage.address_record("192.0.2.1")])
    assert dnsmessage.matches(query, good)
    lower = good.replace(b"Example", b"eXAMPLE")
    assert dnsmessage.matches(query, lower)
    for bad in (
        b"\0\10" + good[2:],
        good[:2] + b"\1" + good[3:],  # no reply
        good.replace(b"Example", b"Exempla"),
        good[:4] + b"\0\0" + good[6:],  # no question, and yet an answer
        good[:4] + b"\1\0" + good[6:],
        good[:11],
    ):
        assert not dnsmessage.matches(query, bad)
    assert dnsmessage.matches(query, HEADER.pack(7, 0x8001, 0, 0, 0, 0))  # it was not understood
