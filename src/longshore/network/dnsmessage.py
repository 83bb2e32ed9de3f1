"""As much of DNS messages (RFC 1035) as the embedded resolver needs: one question, simple answers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

A, PTR, MX, AAAA, SRV, ANY = 1, 12, 15, 28, 33, 255
NOERROR, FORMERR, SERVFAIL, _NOTIMP, _REFUSED = 0, 1, 2, 4, 5
_HEADER = struct.Struct("!HHHHHH")
_QR, _OPCODE, _TC, _RD, _RA = 0x8000, 0x7800, 0x0200, 0x0100, 0x0080
_IN = 1
_TTL = 600
"""Seconds, as Docker's resolver answers."""
_NAME_POINTER = b"\xc0\x0c"
"""The name of an answer: that of the question, which follows the header."""
_OPT = 41
_PLAIN_UDP, _LARGEST_UDP = 512, 4096
"""Bytes of a datagram: without EDNS (RFC 6891), and at most of our own with it."""
_LONGEST_NAME, _LONGEST_LABEL = 255, 63
_LONGEST = 0xFFFF
"""Bytes of a message over TCP."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `name` is lower case, without the final dot; `wire` is the question as it came."""

    id: int
    flags: int
    name: str
    type: int
    wire: bytes
    size: int = _PLAIN_UDP
    """Bytes of a datagram that the client takes."""


def parse(message: bytes) -> Query | None:
    """The question of a standard query; None for anything else.

    A question comes first, so that its name has nothing before it that it could point to: one that is
    compressed is refused, as one that is too long.
    """
    try:
        id, flags, questions, answers, authorities, additional = _HEADER.unpack_from(message)
        if flags & (_QR | _OPCODE) or questions != 1:
            return None
        labels: list[str] = []
        offset = _HEADER.size
        while length := message[offset]:
            if length > _LONGEST_LABEL or offset + 1 + length - _HEADER.size >= _LONGEST_NAME:
                return None
            labels.append(message[offset + 1 : offset + 1 + length].decode("ascii", "replace").lower())
            offset += 1 + length
        kind, family = struct.unpack_from("!HH", message, offset + 1)
    except (struct.error, IndexError):
        return None
    if family not in (_IN, 255):
        return None
    end = offset + 5
    size = _PLAIN_UDP
    # The one thing that as a rule follows the question is an OPT record: the root's name, the type, the size.
    if additional and not answers + authorities and message[end : end + 3] == bytes([0, 0, _OPT]):
        size = max(int.from_bytes(message[end + 3 : end + 5], "big"), _PLAIN_UDP)
    return Query(id, flags, ".".join(labels), kind, message[_HEADER.size : end], size)


def refusal(message: bytes) -> bytes | None:
    """The reply to what `parse` makes nothing of: FORMERR or NOTIMP; None to what must not be replied to.

    Replies are never replied to: two servers would keep each other busy.
    """
    if len(message) < _HEADER.size:
        return None
    id, flags, *_ = _HEADER.unpack_from(message)
    if flags & _QR:
        return None
    code = _NOTIMP if flags & _OPCODE else FORMERR
    return _HEADER.pack(id, _QR | (flags & (_OPCODE | _RD)) | _RA | code, 0, 0, 0, 0)


def answer(query: Query, records: Sequence[bytes], *, code: int = NOERROR, size: int = _LONGEST) -> bytes:
    """The reply with these records, as many as fit, or with an error code."""
    room = size - _HEADER.size - len(query.wire)
    fitting = 0
    for record in records:
        room -= len(record)
        if room < 0:
            break
        fitting += 1
    flags = _QR | (query.flags & _RD) | _RA | code | (_TC if fitting < len(records) else 0)
    head = _HEADER.pack(query.id, flags, 1, fitting, 0, 0)
    return head + query.wire + b"".join(records[:fitting])


def datagram(query: Query, records: Sequence[bytes]) -> bytes:
    """The reply as a datagram: with the records that fit, and the advice to ask over TCP if some do not."""
    return answer(query, records, size=min(query.size, _LARGEST_UDP))


def as_datagram(query: Query, reply: bytes) -> bytes:
    """A server's reply, or the advice to ask over TCP if the client does not take as much."""
    if len(reply) <= query.size:
        return reply
    id, flags, *_ = _HEADER.unpack_from(reply)
    return _HEADER.pack(id, flags | _TC, 1, 0, 0, 0) + query.wire


def address_record(address: str) -> bytes:
    """An A or AAAA record for the question's name."""
    packed = ip_address(address).packed
    return _record(A if len(packed) == 4 else AAAA, packed)


def pointer_records(name: str) -> list[bytes]:
    """A PTR record for the question's name; none where the name is too long for DNS."""
    labels = [label.encode() for label in name.split(".") if label]
    if max(map(len, labels), default=0) > _LONGEST_LABEL or len(name) > _LONGEST_NAME - 2:
        return []
    return [_record(PTR, b"".join(bytes([len(label)]) + label for label in labels) + b"\0")]


def reverse_address(name: str) -> str:
    """The address that a name under in-addr.arpa or ip6.arpa means; empty if it means none."""
    try:
        if name.endswith(".in-addr.arpa"):
            return str(IPv4Address(".".join(reversed(name.removesuffix(".in-addr.arpa").split(".")))))
        if name.endswith(".ip6.arpa"):
            digits = "".join(reversed(name.removesuffix(".ip6.arpa").split(".")))
            return str(IPv6Address(int(digits, 16))) if len(digits) == 32 else ""
    except ValueError:
        pass
    return ""


def matches(query: Query, reply: bytes) -> bool:
    """Whether a message is a reply to the query: same id, same question in any case (RFC 5452)."""
    if len(reply) < _HEADER.size or reply[:2] != struct.pack("!H", query.id) or not reply[2] & 0x80:
        return False
    if reply[4:6] == b"\0\0":  # What a server did not understand it need not repeat.
        return reply[3] & 15 != NOERROR
    question = reply[_HEADER.size : _HEADER.size + len(query.wire)]
    return reply[4:6] == b"\0\1" and question.lower() == query.wire.lower()


def is_final(reply: bytes) -> bool:
    """Whether no other server need be asked: this one neither failed nor refused."""
    return len(reply) >= _HEADER.size and reply[3] & 15 not in (SERVFAIL, _REFUSED)


def _record(kind: int, data: bytes) -> bytes:
    return _NAME_POINTER + struct.pack("!HHIH", kind, _IN, _TTL, len(data)) + data
