"""The gelf driver: Graylog Extended Log Format 1.1, over UDP in compressed chunks or over TCP."""

from __future__ import annotations

import gzip
import secrets
import socket
import zlib
from collections.abc import Mapping, Sequence

import msgspec

from longshore.errors import InvalidParameter
from longshore.logs.delivery import Patience, Sender
from longshore.logs.dial import Address, dial, hang_up, is_transport_url, parse_url
from longshore.logs.info import LogInfo, extra_attributes, parse_tag
from longshore.logs.messages import Message
from longshore.logs.options import parse_int

_COMPRESSION = ("gelf-compression-level", "gelf-compression-type")
_RECONNECTION = ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay")
OPTIONS = frozenset(
    ["gelf-address", "tag", "labels", "labels-regex", "env", "env-regex", *_COMPRESSION, *_RECONNECTION]
)
_CHUNK = 1420 - 12
"""Payload of a datagram that fits an Ethernet frame, behind its header of 12 bytes."""
_MAX_CHUNKS = 128
_ERROR, _INFO = 3, 6


def validate(options: Mapping[str, str]) -> None:
    """Check the options' values. Raises InvalidParameter with dockerd's message."""
    network = parse_address(options.get("gelf-address", "")).network
    for key, value in options.items():
        if key in _COMPRESSION and network != "udp":
            raise InvalidParameter("compression is only supported on UDP")
        if key in _RECONNECTION and network != "tcp":
            raise InvalidParameter(f'"{key}" is only valid for TCP')
        if key in _RECONNECTION and _number(value, -1) < 0:
            raise InvalidParameter(f'"{key}" must be a positive integer')
        level_is_wrong = key == "gelf-compression-level" and not -1 <= _number(value, -2) <= 9
        if level_is_wrong or (key == "gelf-compression-type" and value not in ("gzip", "zlib", "none")):
            raise InvalidParameter(f'unknown value "{value}" for log opt "{key}" for gelf log driver')


def open_sender(options: Mapping[str, str], info: LogInfo) -> GelfSender:
    """Raises InvalidParameter."""
    return GelfSender(options, info)


class GelfSender(Sender):
    """Sends each message as a JSON object."""

    def __init__(self, options: Mapping[str, str], info: LogInfo) -> None:
        """Raises InvalidParameter for a bad tag or expression."""
        extra = {
            "_container_id": info.container_id,
            "_container_name": info.container_name.removeprefix("/"),
            "_image_id": info.image_id,
            "_image_name": info.image_name,
            "_command": info.command,
            "_tag": parse_tag(options.get("tag", ""), info, "{{.ID}}"),
            "_created": info.created,
        }
        for key, value in extra_attributes(options, info, tag=False).items():
            extra[key if key.startswith("_") else f"_{key}"] = value
        self._common = {"version": "1.1", "host": socket.gethostname(), **extra}
        self._address = parse_address(options.get("gelf-address", ""))
        self._compression = options.get("gelf-compression-type", "gzip")
        self._level = parse_int(options.get("gelf-compression-level", "1"))
        self._tries = parse_int(options.get("gelf-tcp-max-reconnect", "3"))
        self._delay = parse_int(options.get("gelf-tcp-reconnect-delay", "1"))
        self._connection: socket.socket | None = None

    def connect(self) -> None:
        """See Sender."""
        hang_up(self._connection)
        self._connection = None
        try:
            self._connection = dial(self._address)
        except OSError as exc:
            raise OSError(f"gelf: cannot connect to GELF endpoint: {self._address} {exc}") from None

    def send(self, messages: Sequence[Message], patience: Patience) -> None:
        """See Sender."""
        for message in messages:
            if not message.line:  # GELF has no empty messages.
                continue
            data = self._encode(message)
            if self._address.network == "tcp":
                self._send_stream(data + b"\0", patience)
            else:
                self._send_datagrams(self._compress(data))

    def abort(self) -> None:
        """See Sender."""
        hang_up(self._connection)

    def _encode(self, message: Message) -> bytes:
        own = {
            "short_message": message.text,
            "timestamp": message.time_ns // 1_000_000 / 1000,
            "level": _ERROR if message.stream == "stderr" else _INFO,
        }
        return msgspec.json.encode({**self._common, **own})

    def _compress(self, data: bytes) -> bytes:
        if self._compression == "none":
            return data
        level = zlib.Z_DEFAULT_COMPRESSION if self._level < 0 else self._level
        if self._compression == "zlib":
            return zlib.compress(data, level)
        return gzip.compress(data, level if level >= 0 else 6)

    def _send_datagrams(self, data: bytes) -> None:
        if self._connection is None:
            self.connect()
        assert self._connection is not None
        if len(data) <= _CHUNK + 12:
            self._connection.send(data)
            return
        pieces = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
        if len(pieces) > _MAX_CHUNKS:
            raise OSError(f"gelf: cannot send GELF message: msg too large, would need {len(pieces)} chunks")
        identity = secrets.token_bytes(8)
        for number, piece in enumerate(pieces):
            self._connection.send(b"\x1e\x0f" + identity + bytes([number, len(pieces)]) + piece)

    def _send_stream(self, data: bytes, patience: Patience) -> None:
        failure: OSError | None = None
        for attempt in range(self._tries + 1):
            try:
                if self._connection is None or attempt:
                    self.connect()
                assert self._connection is not None
                self._connection.sendall(data)
            except OSError as exc:
                failure = exc
                if attempt == self._tries or not patience.wait(self._delay):
                    break
            else:
                return
        raise OSError(f"gelf: cannot send GELF message: {failure}")


def parse_address(address: str) -> Address:
    """Where to. Raises InvalidParameter with dockerd's message."""
    if not address:
        raise InvalidParameter("gelf-address is a required parameter")
    if not is_transport_url(address):
        raise InvalidParameter(f"gelf-address should be in form proto://address, got {address}")
    url = parse_url(address)
    if url.scheme not in ("udp", "tcp"):
        raise InvalidParameter("gelf: endpoint needs to be UDP or TCP")
    if url.port is None:
        raise InvalidParameter("gelf: please provide gelf-address as proto://host:port")
    return Address(url.scheme, url.hostname or "localhost", url.port)


def _number(text: str, otherwise: int) -> int:
    try:
        return parse_int(text)
    except InvalidParameter:
        return otherwise
