"""The syslog driver: RFC 3164 and RFC 5424 over UDP, TCP, TLS and Unix sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from longshore.errors import InvalidParameter
from longshore.logs.delivery import Patience, Sender
from longshore.logs.dial import Address, client_context, dial, hang_up, is_transport_url, parse_url
from longshore.logs.info import LogInfo, parse_tag
from longshore.logs.messages import Message
from longshore.logs.options import parse_int

OPTIONS = frozenset(
    [
        "env",
        "env-regex",
        "labels",
        "labels-regex",
        "syslog-address",
        "syslog-facility",
        "syslog-tls-ca-cert",
        "syslog-tls-cert",
        "syslog-tls-key",
        "syslog-tls-skip-verify",
        "tag",
        "syslog-format",
    ]
)
_FACILITIES = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "-",
    "-",
    "-",
    "-",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
]
_DAEMON, _ERROR, _INFO = 3, 3, 6
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_APP_NAME_MAX = 48
Formatter = Callable[[int, int, str, str, str], str]


def validate(options: Mapping[str, str]) -> None:
    """Check the options' values. Raises InvalidParameter, OSError if a Unix socket is not there."""
    parse_address(options.get("syslog-address", ""))
    parse_facility(options.get("syslog-facility", ""))
    parse_format(options.get("syslog-format", ""))


def open_sender(options: Mapping[str, str], info: LogInfo) -> SyslogSender:
    """Raises InvalidParameter, System and OSError."""
    return SyslogSender(options, info)


class SyslogSender(Sender):
    """Sends each message as one datagram, or one frame of a stream."""

    def __init__(self, options: Mapping[str, str], info: LogInfo) -> None:
        """Raises InvalidParameter and OSError."""
        self._tag = parse_tag(options.get("tag", ""), info, "{{.ID}}")
        self._address = parse_address(options.get("syslog-address", ""))
        self._facility = parse_facility(options.get("syslog-facility", ""))
        self._format = parse_format(options.get("syslog-format", ""))
        self._hostname = socket.gethostname()
        self._secure = self._address is not None and self._address.network == "tcp+tls"
        self._octets = self._secure and options.get("syslog-format", "").startswith("rfc5424")
        self._tls = partial(
            client_context,
            options.get("syslog-tls-ca-cert", ""),
            options.get("syslog-tls-cert", ""),
            options.get("syslog-tls-key", ""),
            skip_verify="syslog-tls-skip-verify" in options,
        )
        self._connection: socket.socket | None = None

    def connect(self) -> None:
        """See Sender."""
        hang_up(self._connection)
        self._connection = None
        if self._address is not None:
            self._connection = dial(self._address, self._tls if self._secure else None)
        else:
            self._connection = _dial_local()

    def send(self, messages: Sequence[Message], patience: Patience) -> None:
        """See Sender. A message that fails is sent once more, over a new connection."""
        for message in messages:
            data = self._frame(message)
            try:
                if self._connection is not None:
                    self._connection.sendall(data)
                    continue
            except OSError:
                pass
            self.connect()
            assert self._connection is not None
            self._connection.sendall(data)

    def abort(self) -> None:
        """See Sender."""
        hang_up(self._connection)

    def _frame(self, message: Message) -> bytes:
        priority = self._facility << 3 | (_ERROR if message.stream == "stderr" else _INFO)
        text = self._format(priority, message.time_ns, self._hostname, self._tag, message.text) + "\n"
        data = text.encode()
        return b"%d %b" % (len(data), data) if self._octets else data


def parse_address(address: str) -> Address | None:
    """Where to; None is this machine's own syslog. Raises InvalidParameter with dockerd's message."""
    if not address:
        return None
    if not is_transport_url(address):
        raise InvalidParameter(f"syslog-address should be in form proto://address, got {address}")
    url = parse_url(address)
    if url.scheme in ("unix", "unixgram"):
        if not Path(url.path).exists():
            raise InvalidParameter(f"stat {url.path}: no such file or directory")
        return Address(url.scheme, path=url.path)
    return Address(url.scheme, url.hostname or "", url.port or 514)


def parse_facility(facility: str) -> int:
    """A facility by name or number. Raises InvalidParameter."""
    if not facility:
        return _DAEMON
    if facility in _FACILITIES and facility != "-":
        return _FACILITIES.index(facility)
    try:
        number = parse_int(facility)
    except InvalidParameter:
        number = -1
    if not 0 <= number <= 23:
        raise InvalidParameter("invalid syslog facility")
    return number


def parse_format(name: str) -> Formatter:
    """What makes a message's text. Raises InvalidParameter."""
    formats: dict[str, Formatter] = {
        "": _unix,
        "rfc3164": _rfc3164,
        "rfc5424": partial(_rfc5424, "seconds"),
        "rfc5424micro": partial(_rfc5424, "microseconds"),
    }
    if name not in formats:
        raise InvalidParameter("Invalid syslog format")
    return formats[name]


def _unix(priority: int, time_ns: int, hostname: str, tag: str, text: str) -> str:
    return f"<{priority}>{_stamp(time_ns)} {tag}[{os.getpid()}]: {text}"


def _rfc3164(priority: int, time_ns: int, hostname: str, tag: str, text: str) -> str:
    return f"<{priority}>{_stamp(time_ns)} {hostname} {tag}[{os.getpid()}]: {text}"


def _rfc5424(precision: str, priority: int, time_ns: int, hostname: str, tag: str, text: str) -> str:
    # The application's name is the tag, at the length the RFC allows, as is the message's id.
    moment = datetime.fromtimestamp(time_ns / 1e9).astimezone().isoformat(timespec=precision)
    moment = moment.removesuffix("+00:00") + "Z" if moment.endswith("+00:00") else moment
    return f"<{priority}>1 {moment} {hostname} {tag[:_APP_NAME_MAX]} {os.getpid()} {tag} - {text}"


def _stamp(time_ns: int) -> str:
    """Go's time.Stamp: the day padded with a space."""
    moment = time.localtime(time_ns // 1_000_000_000)
    return time.strftime(f"%b {moment.tm_mday:2d} %H:%M:%S", moment)


def _dial_local() -> socket.socket:
    for network in ("unixgram", "unix"):
        for path in _LOCAL:
            try:
                return dial(Address(network, path=path))
            except OSError:
                continue
    raise OSError("Unix syslog delivery error")
