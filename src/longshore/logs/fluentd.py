"""The fluentd driver: the forward protocol's messages, in msgpack, over TCP, TLS and Unix sockets."""

from __future__ import annotations

import base64
import re
import secrets
import socket
import ssl
import time
from collections.abc import Mapping, Sequence

import msgspec

from longshore.errors import InvalidParameter
from longshore.logs.delivery import Patience, QueueLimit, Sender
from longshore.logs.dial import Address, dial, hang_up, parse_url
from longshore.logs.info import LogInfo, extra_attributes, parse_tag
from longshore.logs.messages import Message
from longshore.logs.options import parse_binary_size, parse_bool
from longshore.types.timestamp import SECOND, parse_duration

OPTIONS = frozenset(
    [
        "env",
        "env-regex",
        "labels",
        "labels-regex",
        "tag",
        "fluentd-address",
        "fluentd-async",
        "fluentd-async-reconnect-interval",
        "fluentd-buffer-limit",
        "fluentd-max-retries",
        "fluentd-read-timeout",
        "fluentd-request-ack",
        "fluentd-retry-wait",
        "fluentd-sub-second-precision",
        "fluentd-write-timeout",
    ]
)
_PORT = 24224
_RETRY_FACTOR, _RETRY_MAX = 1.5, 60.0
_MOST_RETRIES = (1 << 31) - 1
_EVENT_TIME = 0
_ACK_SIZE = 1024


class Config(msgspec.Struct, frozen=True):
    """The options' values; times in seconds, 0 is for ever. Defaults are dockerd's."""

    address: Address
    asynchronous: bool = False
    reconnect_interval: float = 0.0
    buffer_limit: int = 1 << 20
    """Messages, whatever the option's form says: so it is in dockerd."""
    max_retries: int = _MOST_RETRIES
    retry_wait: float = 1.0
    read_timeout: float = 0.0
    write_timeout: float = 0.0
    precise: bool = False
    request_ack: bool = False


def validate(options: Mapping[str, str]) -> None:
    """Check the options' values. Raises InvalidParameter with dockerd's message."""
    parse_config(options)


def open_sender(options: Mapping[str, str], info: LogInfo) -> FluentdSender:
    """Raises InvalidParameter."""
    return FluentdSender(options, info)


class FluentdSender(Sender):
    """Sends `[tag, time, record, option]` for each message, and tries again until it is taken."""

    def __init__(self, options: Mapping[str, str], info: LogInfo) -> None:
        """Raises InvalidParameter."""
        self._config = parse_config(options)
        if self._config.asynchronous:
            self.limit = QueueLimit(self._config.buffer_limit, lossy=True, count_messages=True)
        self._tag = parse_tag(options.get("tag", ""), info, "{{.ID}}")
        self._extra = extra_attributes(options, info, tag=False)
        self._common = {"container_id": info.container_id, "container_name": info.container_name}
        self._connection: socket.socket | None = None
        self._connected = 0.0

    def connect(self) -> None:
        """See Sender. Asynchronously: with the first message."""
        if not self._config.asynchronous:
            self._connect()

    def send(self, messages: Sequence[Message], patience: Patience) -> None:
        """See Sender."""
        interval = self._config.reconnect_interval
        if self._config.asynchronous and interval and time.monotonic() - self._connected > interval:
            self._hang_up()
        left, delay = [self._encode(message) for message in messages], self._config.retry_wait
        for attempt in range(self._config.max_retries):
            try:
                if self._connection is None:
                    self._connect()
                self._deliver(left)
            except OSError as exc:
                self._hang_up()
                tried = attempt + 1
                if tried == self._config.max_retries:
                    raise OSError(f"fluent#write: failed to write after {tried} attempts: {exc}") from None
                if not patience.wait(delay):
                    raise
                delay = min(delay * _RETRY_FACTOR, _RETRY_MAX)
            else:
                return

    def abort(self) -> None:
        """See Sender."""
        hang_up(self._connection)

    def _connect(self) -> None:
        self._hang_up()
        tls = ssl.create_default_context if self._config.address.network == "tcp+tls" else None
        self._connection = dial(self._config.address, tls)
        self._connected = time.monotonic()

    def _hang_up(self) -> None:
        hang_up(self._connection)
        self._connection = None

    def _deliver(self, left: list[tuple[bytes, bytes]]) -> None:
        """Send what is `left`, of which what was taken is removed, whatever happens. Raises OSError."""
        connection = self._connection
        assert connection is not None
        connection.settimeout(self._config.write_timeout or None)
        if self._config.request_ack:
            connection.sendall(b"".join(data for data, _ in left))
            connection.settimeout(self._config.read_timeout or None)
            self._await_acks(connection, left)
            return
        while left:
            data = memoryview(left[0][0])
            while data:
                data = data[connection.send(data) :]
            del left[0]

    def _await_acks(self, connection: socket.socket, left: list[tuple[bytes, bytes]]) -> None:
        """Ids are long and random: seeing one is as good as parsing `{"ack": id}`."""
        received = b""
        while left:
            answer = connection.recv(_ACK_SIZE)
            if not answer:
                raise OSError("fluent#write: error receiving message ack: EOF")
            received += answer
            left[:] = [each for each in left if each[1] not in received]
            received = received[-_ACK_SIZE:]

    def _encode(self, message: Message) -> tuple[bytes, bytes]:
        """A message, and the id that its acknowledgement will have."""
        record = {**self._common, "source": message.stream, "log": message.text, **self._extra}
        if (piece := message.partial) is not None:
            record["partial_message"] = "true"
            record["partial_id"] = piece.id
            record["partial_ordinal"] = str(piece.ordinal)
            record["partial_last"] = "true" if piece.last else "false"
        seconds, rest = divmod(message.time_ns, SECOND)
        moment: object = seconds
        if self._config.precise:
            moment = msgspec.msgpack.Ext(_EVENT_TIME, seconds.to_bytes(4, "big") + rest.to_bytes(4, "big"))
        chunk = base64.b64encode(secrets.token_bytes(16)) if self._config.request_ack else b""
        option = {"chunk": chunk.decode()} if chunk else {}
        return msgspec.msgpack.encode([self._tag, moment, record, option]), chunk


def parse_config(options: Mapping[str, str]) -> Config:
    """Read all of the driver's own options. Raises InvalidParameter with dockerd's message."""
    address = parse_address(options.get("fluentd-address", ""))
    given = {name.removeprefix("fluentd-"): value for name, value in options.items() if value}
    limit = parse_binary_size(given["buffer-limit"]) if "buffer-limit" in given else 1 << 20
    wait = parse_duration(given["retry-wait"]) / SECOND if "retry-wait" in given else 1.0
    retries = _retries(given.get("max-retries", str(_MOST_RETRIES)))
    asynchronous = parse_bool(given.get("async", "false"))
    interval = _interval(given.get("async-reconnect-interval", "0"))
    return Config(
        address,
        asynchronous,
        interval,
        # What is 0 the client library replaces by defaults of its own.
        limit or 8 * 1024,
        retries or 13,
        wait or 0.5,
        precise=parse_bool(given.get("sub-second-precision", "false")),
        request_ack=parse_bool(given.get("request-ack", "false")),
        write_timeout=_timeout("fluentd-write-timeout", given.get("write-timeout", "0")),
        read_timeout=_timeout("fluentd-read-timeout", given.get("read-timeout", "0")),
    )


def parse_address(address: str) -> Address:
    """Where to. Raises InvalidParameter with dockerd's message."""
    url = parse_url(address if "://" in address else f"tcp://{address}")
    problem = ""
    if url.scheme == "unix":
        if url.path.lstrip("/"):
            return Address("unix", path=url.path)
        problem = "path is empty"
    elif url.scheme not in ("tcp", "tls"):
        problem = f"unsupported scheme: '{url.scheme}'"
    elif url.path:
        problem = "should not contain a path element"
    if problem:
        raise InvalidParameter(f"invalid fluentd-address ({address}): {problem}")
    return Address(
        "tcp+tls" if url.scheme == "tls" else "tcp", url.hostname or "127.0.0.1", url.port or _PORT
    )


def _retries(text: str) -> int:
    if not re.fullmatch("[0-9]+", text):
        raise InvalidParameter(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if len(text) > 10 or int(text) >= 1 << 32:
        raise InvalidParameter(f'strconv.ParseUint: parsing "{text}": value out of range')
    if int(text) > _MOST_RETRIES:
        raise InvalidParameter("invalid fluentd-max-retries: value out of range")
    return int(text)


def _interval(text: str) -> float:
    name = "fluentd-async-reconnect-interval"
    try:
        interval = parse_duration(text)
    except InvalidParameter as exc:
        raise InvalidParameter(f"invalid value for {name}: {exc.message}") from None
    if interval and not SECOND // 10 <= interval <= 10 * SECOND:
        raise InvalidParameter(f'invalid value for {name}: value ("{text}") must be between 100ms and 10s')
    return interval / SECOND


def _timeout(name: str, text: str) -> float:
    problem = f"invalid value for {name}: value must be a duration"
    try:
        timeout = parse_duration(text)
    except InvalidParameter as exc:
        raise InvalidParameter(f"{problem}: {exc.message}") from None
    if timeout < 0:
        raise InvalidParameter(f"{problem} that is non-negative")
    return timeout / SECOND
