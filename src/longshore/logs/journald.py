"""The journald driver: the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from longshore.errors import System
from longshore.logs.delivery import Patience, Sender
from longshore.logs.dial import Address, dial, hang_up
from longshore.logs.info import LogInfo, extra_attributes, parse_tag
from longshore.logs.messages import Message
from longshore.types.timestamp import rfc3339_nano

OPTIONS = frozenset(["labels", "labels-regex", "env", "env-regex", "tag"])
SOCKET = Path("/run/systemd/journal/socket")
_PRIORITY = {"stderr": b"3"}
_INFO = b"6"
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def validate(options: Mapping[str, str]) -> None:
    """No option's value can be wrong by itself."""


def open_sender(options: Mapping[str, str], info: LogInfo) -> JournaldSender:
    """Raises InvalidParameter, System and OSError."""
    return JournaldSender(options, info)


class JournaldSender(Sender):
    """Sends each message as one entry, a datagram, or a sealed memory file if it is too large for one."""

    def __init__(self, options: Mapping[str, str], info: LogInfo, path: Path = SOCKET) -> None:
        """Raises InvalidParameter for a bad tag or expression, System where there is no journal."""
        if not path.exists():
            raise System("journald is not enabled on this host")
        tag = parse_tag(options.get("tag", ""), info, "{{.ID}}")
        fields = {
            "CONTAINER_ID": info.container_id[:12],
            "CONTAINER_ID_FULL": info.container_id,
            "CONTAINER_NAME": info.container_name.removeprefix("/"),
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": info.image_name,
            "SYSLOG_IDENTIFIER": tag,
            "CONTAINER_LOG_EPOCH": secrets.token_hex(32),
        }
        fields |= {
            _field_name(key): value for key, value in extra_attributes(options, info, tag=False).items()
        }
        self._common = b"".join(_field(name, value.encode()) for name, value in fields.items() if name)
        self._ordinal = 0
        self._path = path
        self._connection: socket.socket | None = None

    def connect(self) -> None:
        """See Sender."""
        hang_up(self._connection)
        self._connection = None
        self._connection = dial(Address("unixgram", path=str(self._path)))

    def send(self, messages: Sequence[Message], patience: Patience) -> None:
        """See Sender. A journal that was restarted is found again."""
        for message in messages:
            entry = self._entry(message)
            try:
                if self._connection is not None:
                    _send_entry(self._connection, entry)
                    continue
            except OSError:
                pass
            self.connect()
            assert self._connection is not None
            _send_entry(self._connection, entry)

    def abort(self) -> None:
        """See Sender."""
        hang_up(self._connection)

    def _entry(self, message: Message) -> bytes:
        self._ordinal += 1
        parts = [
            _field("MESSAGE", message.line),
            _field("PRIORITY", _PRIORITY.get(message.stream, _INFO)),
            self._common,
            _field("CONTAINER_LOG_ORDINAL", b"%d" % self._ordinal),
            _field("SYSLOG_TIMESTAMP", rfc3339_nano(message.time_ns).encode()),
        ]
        if (piece := message.partial) is not None:
            parts.append(_field("CONTAINER_PARTIAL_ID", piece.id.encode()))
            parts.append(_field("CONTAINER_PARTIAL_ORDINAL", b"%d" % piece.ordinal))
            parts.append(_field("CONTAINER_PARTIAL_LAST", b"true" if piece.last else b"false"))
            if not piece.last:
                parts.append(_field("CONTAINER_PARTIAL_MESSAGE", b"true"))
        return b"".join(parts)


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%b\n%b%b\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%b=%b\n" % (name.encode(), value)


def _field_name(key: str) -> str:
    """Upper case letters, digits and underscores, none of these in front."""
    upper = re.sub("[a-z]", lambda match: match[0].upper(), key)
    return re.sub("[^A-Z0-9]", "_", upper).lstrip("_")


def _send_entry(connection: socket.socket, entry: bytes) -> None:
    try:
        connection.send(entry)
    except OSError as exc:
        if exc.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
            raise
        _send_file(connection, entry)


def _send_file(connection: socket.socket, entry: bytes) -> None:
    """The journal takes only files that nobody can change any more."""
    fd = os.memfd_create("journal-entry", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        rest = memoryview(entry)
        while rest:
            rest = rest[os.write(fd, rest) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        socket.send_fds(connection, [b""], [fd])
    finally:
        os.close(fd)
