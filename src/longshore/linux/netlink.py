"""Netlink: requests and their acknowledgements, and nothing about what they mean.

Layout and flags are those of linux/netlink.h. A socket belongs to the network namespace in which it was
opened, for as long as it lives: whoever holds it can act there from any thread.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_SIZE = 1 << 18


@dataclass(frozen=True, slots=True)
class Message:
    """One request: its type, its payload (family header and attributes), its flags beyond REQUEST."""

    type: int
    payload: bytes
    flags: int = NLM_F_ACK


class NetlinkSocket:
    """A request socket in the calling thread's network namespace; one request at a time, from any thread."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        """Raises OSError, e.g. when the kernel lacks the protocol."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise
        self._lock = threading.Lock()
        self._sequence = 0

    def fileno(self) -> int:
        """The descriptor, for calls that are not netlink's own."""
        return self._socket.fileno()

    def request(self, *messages: Message) -> None:
        """Send the messages as one write and wait until each is acknowledged.

        The kernel handles them in order and does not stop at one that fails; the first failure is raised
        as OSError once all are answered.
        """
        with self._lock:
            waiting = self._send(messages)
            failed = 0
            while waiting:
                for kind, sequence, body in self._receive():
                    if kind == _NLMSG_ERROR and sequence in waiting:
                        waiting.discard(sequence)
                        failed = failed or -struct.unpack_from("=i", body)[0]
        if failed:
            raise OSError(failed, os.strerror(failed))

    def dump(self, message: Message) -> list[bytes]:
        """Every answer to a dump request. Raises OSError."""
        return self._collect(Message(message.type, message.payload, NLM_F_DUMP))

    def get(self, message: Message) -> bytes:
        """The one answer to a request for one object. Raises OSError, as a rule ENODEV or ENOENT."""
        return self._collect(Message(message.type, message.payload, NLM_F_ACK))[0]

    def close(self) -> None:
        """Close the socket, and with it this hold on the network namespace."""
        self._socket.close()

    def _collect(self, message: Message) -> list[bytes]:
        with self._lock:
            waiting = self._send([message])
            answers: list[bytes] = []
            while True:
                for kind, sequence, body in self._receive():
                    if sequence not in waiting:
                        continue
                    if kind == _NLMSG_DONE:
                        return answers
                    if kind == _NLMSG_ERROR:
                        failed = -struct.unpack_from("=i", body)[0]
                        if failed:
                            raise OSError(failed, os.strerror(failed))
                        return answers
                    answers.append(body)

    def _send(self, messages: Sequence[Message]) -> set[int]:
        parts: list[bytes] = []
        sequences: set[int] = set()
        for message in messages:
            self._sequence = (self._sequence + 1) & 0xFFFFFFFF
            sequences.add(self._sequence)
            length = _HEADER.size + len(message.payload)
            header = _HEADER.pack(length, message.type, message.flags | NLM_F_REQUEST, self._sequence, 0)
            parts += (header, message.payload, bytes(-length % 4))
        self._socket.sendto(b"".join(parts), (0, 0))
        return sequences

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(_RECEIVE_SIZE)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute with its padding."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in the machine's byte order."""
    return attribute(kind, struct.pack("=I", value))


def u8(kind: int, value: int) -> bytes:
    """An 8-bit attribute."""
    return attribute(kind, struct.pack("=B", value))


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes that follow a family header of `offset` bytes; of a repeated type, the last."""
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found
