"""The fluentd driver: the forward protocol's messages, in msgpack, over TCP and Unix sockets."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

import msgspec

from longshore.errors import InvalidParameter
from longshore.logs.delivery import Patience
from longshore.logs.dial import Address, dial, hang_up, parse_url
from longshore.logs.info import LogInfo, extra_attributes, parse_tag
from longshore.logs.messages import Message
from longshore.logs.options import parse_bool

OPTIONS = frozenset(
    ["env", "env-regex", "labels", "labels-regex", "tag", "fluentd-address", "fluentd-sub-second-precision"]
)
_PORT = 24224
_RETRY, _RETRY_FACTOR, _RETRY_MAX = 1.0, 1.5, 60.0
_EVENT_TIME = 0


def validate(options: Mapping[str, str]) -> None:
    """Check the options' values. Raises InvalidParameter."""
    parse_address(options.get("fluentd-address", ""))
    parse_bool(options.get("fluentd-sub-second-precision") or "false")


def open_sender(options: Mapping[str, str], info: LogInfo) -> FluentdSender:
    """Raises InvalidParameter."""
    return FluentdSender(options, info)


class FluentdSender:
    """Sends `[tag, time, record]` for each message, and tries again until it is taken."""

    interval: float | None = None

    def __init__(self, options: Mapping[str, str], info: LogInfo) -> None:
        """Raises InvalidParameter."""
        self._address = parse_address(options.get("fluentd-address", ""))
        self._precise = parse_bool(options.get("fluentd-sub-second-precision") or "false")
        self._tag = parse_tag(options.get("tag", ""), info, "{{.ID}}")
        self._extra = extra_attributes(options, info, tag=False)
        self._common = {"container_id": info.container_id, "container_name": info.container_name}
        self._connection: socket.socket | None = None

    def connect(self) -> None:
        """See Sender."""
        hang_up(self._connection)
        self._connection = None
        self._connection = dial(self._address)

    def send(self, messages: Sequence[Message], patience: Patience) -> None:
        """See Sender."""
        data, delay = b"".join(map(self._encode, messages)), _RETRY
        while True:
            try:
                if self._connection is None:
                    self.connect()
                assert self._connection is not None
                self._connection.sendall(data)
            except OSError:
                hang_up(self._connection)
                self._connection = None
                if not patience.wait(delay):
                    raise
                delay = min(delay * _RETRY_FACTOR, _RETRY_MAX)
            else:
                return

    def finish(self, patience: Patience) -> None:
        """See Sender."""

    def abort(self) -> None:
        """See Sender."""
        hang_up(self._connection)

    def _encode(self, message: Message) -> bytes:
        record = {**self._common, "source": message.stream, "log": message.text, **self._extra}
        if (piece := message.partial) is not None:
            record["partial_message"] = "true"
            record["partial_id"] = piece.id
            record["partial_ordinal"] = str(piece.ordinal)
            record["partial_last"] = "true" if piece.last else "false"
        seconds, rest = divmod(message.time_ns, 1_000_000_000)
        exact = msgspec.msgpack.Ext(_EVENT_TIME, seconds.to_bytes(4, "big") + rest.to_bytes(4, "big"))
        return msgspec.msgpack.encode([self._tag, exact if self._precise else seconds, record])


def parse_address(address: str) -> Address:
    """Where to. Raises InvalidParameter with dockerd's message."""
    url = parse_url(address if "://" in address else f"tcp://{address}")
    problem = ""
    if url.scheme == "unix":
        if url.path.lstrip("/"):
            return Address("unix", path=url.path)
        problem = "path is empty"
    elif url.scheme != "tcp":
        problem = f"unsupported scheme: '{url.scheme}'"
    elif url.path:
        problem = "should not contain a path element"
    if problem:
        raise InvalidParameter(f"invalid fluentd-address ({address}): {problem}")
    return Address("tcp", url.hostname or "127.0.0.1", url.port or _PORT)
