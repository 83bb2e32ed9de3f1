"""The splunk driver: events to Splunk's HTTP Event Collector, in batches."""

from __future__ import annotations

import gzip
import logging
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from longshore.errors import InvalidParameter
from longshore.logs.delivery import Patience, Sender
from longshore.logs.info import LogInfo, extra_attributes, parse_tag
from longshore.logs.messages import Message
from longshore.logs.options import parse_bool, parse_int
from longshore.types.timestamp import SECOND, parse_duration

if TYPE_CHECKING:
    from urllib3 import PoolManager

_log = logging.getLogger(__name__)

OPTIONS = frozenset(
    [
        "splunk-url",
        "splunk-token",
        "splunk-source",
        "splunk-sourcetype",
        "splunk-index",
        "splunk-capath",
        "splunk-caname",
        "splunk-insecureskipverify",
        "splunk-format",
        "splunk-verify-connection",
        "splunk-gzip",
        "splunk-gzip-level",
        "splunk-index-acknowledgment",
        "env",
        "env-regex",
        "labels",
        "labels-regex",
        "tag",
    ]
)
_PATH = "/services/collector/event/1.0"
_TIMEOUT = 30.0
_MAX_ANSWER = 1024
_LAST_CHANCES = 0.5
"""Seconds between the last tries, once the container has ended."""
# Settings of the daemon's environment, by their names and defaults in dockerd.
_SETTING = "SPLUNK_LOGGING_DRIVER_"
_FREQUENCY, _BATCH, _BUFFER = "POST_MESSAGES_FREQUENCY", "POST_MESSAGES_BATCH_SIZE", "BUFFER_MAX"


def validate(options: Mapping[str, str]) -> None:
    """As in dockerd, values are looked at when the container starts."""


def open_sender(options: Mapping[str, str], info: LogInfo) -> SplunkSender:
    """Raises InvalidParameter and OSError."""
    return SplunkSender(options, info)


class SplunkSender(Sender):
    """Collects events and posts them in batches; what the collector does not take is tried again."""

    piece = 80 * 1024

    def __init__(self, options: Mapping[str, str], info: LogInfo) -> None:
        """Raises InvalidParameter and OSError, worded as dockerd's."""
        self._url = parse_url(options)
        if "splunk-token" not in options:
            raise InvalidParameter("splunk: splunk-token is expected")
        self._headers = {"Authorization": f"Splunk {options['splunk-token']}"}
        self._pool = _Pool(options, self._url)
        self._gzip = parse_bool(options.get("splunk-gzip", "false"))
        self._level = _gzip_level(options.get("splunk-gzip-level", "-1"))
        if parse_bool(options.get("splunk-index-acknowledgment", "false")):
            self._headers["X-Splunk-Request-Channel"] = str(uuid.uuid4())
        if self._gzip:
            self._headers["Content-Encoding"] = "gzip"
        common = {"host": socket.gethostname()}
        for name in ("source", "sourcetype", "index"):
            if value := options.get(f"splunk-{name}"):
                common[name] = value
        # An empty tag is a wish for none, not for the default.
        tag = parse_tag(options["tag"], info) if "tag" in options else parse_tag("{{.ID}}", info)
        attributes = extra_attributes(options, info, tag=False)
        self._verify = parse_bool(options.get("splunk-verify-connection", "true"))
        self._encode = _Encoder(options.get("splunk-format", "inline"), common, tag, attributes)
        self._frequency = _setting(_FREQUENCY, 5 * SECOND, parse_duration) / SECOND
        self._batch = max(1, _setting(_BATCH, 1000, parse_int))
        self._most = _setting(_BUFFER, 10_000, parse_int)
        self._waiting: list[bytes] = []
        self._posted = time.monotonic()

    def due(self) -> float | None:
        """See Sender."""
        return max(0.0, self._posted + self._frequency - time.monotonic()) if self._waiting else None

    def connect(self) -> None:
        """See Sender."""
        if self._verify:
            headers = {"Authorization": self._headers["Authorization"]}
            self._pool.request("OPTIONS", headers, b"", _TIMEOUT, "failed to verify connection")

    def send(self, messages: Sequence[Message], patience: Patience) -> None:
        """See Sender. Posts when there is a batch, or the time has come."""
        for message in messages:
            if event := self._encode(message):
                if not self._waiting:
                    self._posted = max(self._posted, time.monotonic() - self._frequency)
                self._waiting.append(event)
                # Only at whole batches: a collector that fails is not asked again for each event.
                if len(self._waiting) % self._batch == 0:
                    self._post(patience)
        if self.due() == 0:
            self._post(patience)

    def finish(self, patience: Patience) -> None:
        """See Sender. Tries until there is no time left; what is left then goes into the daemon's own log."""
        self._post(patience)
        while self._waiting and patience.wait(_LAST_CHANCES):
            self._post(patience)
        for event in self._waiting:
            _log.error("Failed to send a message '%s'", event.decode())

    def abort(self) -> None:
        """See Sender."""
        self._pool.close()

    def _post(self, patience: Patience) -> None:
        """Post all that waits. What fails goes on waiting, but never more than the buffer may hold."""
        self._posted = time.monotonic()
        while self._waiting:
            batch = self._waiting[: self._batch]
            data = b"".join(batch)
            if self._gzip:
                data = gzip.compress(data, self._level)
            timeout = max(0.1, min(_TIMEOUT, patience.left))
            try:
                self._pool.request("POST", self._headers, data, timeout, "failed to send event")
            except OSError as exc:
                _log.warning("Error while sending logs: %s", exc)
                if len(self._waiting) < self._most:
                    return
                for event in batch:
                    _log.error("Failed to send a message '%s'", event.decode())
                del self._waiting[: len(batch)]
                return
            del self._waiting[: len(batch)]


class _Encoder:
    """Makes an event of a message, in one of the driver's three formats."""

    def __init__(self, form: str, common: Mapping[str, str], tag: str, attributes: Mapping[str, str]) -> None:
        """Raises InvalidParameter."""
        if form not in ("inline", "json", "raw"):
            raise InvalidParameter(
                f"unknown format specified {form}, supported formats are inline, json and raw"
            )
        self._form = form
        self._common = common
        self._about: dict[str, Any] = {"tag": tag} if tag else {}
        if attributes:
            self._about["attrs"] = dict(attributes)
        self._prefix = f"{tag} " if tag else ""
        self._prefix += "".join(f"{key}={value} " for key, value in attributes.items())

    def __call__(self, message: Message) -> bytes:
        """The event; nothing for a blank line in the format raw, which the collector would refuse."""
        event: Any
        if self._form == "raw":
            if not message.text.strip():
                return b""
            event = self._prefix + message.text
        else:
            event = {"line": self._line(message), "source": message.stream, **self._about}
        return msgspec.json.encode({"event": event, "time": f"{message.time_ns / SECOND:f}", **self._common})

    def _line(self, message: Message) -> object:
        if self._form == "json":
            try:
                msgspec.json.decode(message.line)
            except (msgspec.DecodeError, RecursionError):
                return message.text
            return msgspec.Raw(message.line)
        return message.text


class _Pool:
    """Connections to the collector."""

    def __init__(self, options: Mapping[str, str], url: str) -> None:
        """Raises InvalidParameter and OSError."""
        self._url = url
        self._skip_verify = parse_bool(options.get("splunk-insecureskipverify", "false"))
        self._ca = options.get("splunk-capath")
        self._name = options.get("splunk-caname")
        self._pool: PoolManager | None = None
        if self._ca is not None:
            try:
                with open(self._ca, "rb"):  # noqa: PTH123
                    pass
            except OSError as exc:
                raise OSError(f"open {self._ca}: {(exc.strerror or str(exc)).lower()}") from None

    def request(
        self, method: str, headers: Mapping[str, str], data: bytes, timeout: float, failed: str
    ) -> None:
        """One request. Raises OSError, also for an answer that is not 200."""
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        try:
            answer = self._open().request(
                method,
                self._url,
                body=data,
                headers=dict(headers),
                timeout=Timeout(total=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            body = answer.read(_MAX_ANSWER)
            answer.drain_conn()
            answer.release_conn()
        except HTTPError as exc:
            raise OSError(f'{method.capitalize()} "{self._url}": {_reason(exc, self._url)}') from None
        if answer.status != 200:
            status = f"{answer.status} {answer.reason or ''}".strip()
            raise OSError(f"splunk: {failed} - {status} - {body.decode('utf-8', 'replace')}")

    def close(self) -> None:
        """Close what is idle."""
        if self._pool is not None:
            self._pool.clear()

    def _open(self) -> PoolManager:
        if self._pool is None:
            import ssl
            from urllib.request import getproxies, proxy_bypass

            from urllib3 import PoolManager, ProxyManager, disable_warnings
            from urllib3.exceptions import InsecureRequestWarning

            context = ssl.create_default_context(cafile=self._ca)
            if self._skip_verify:
                disable_warnings(InsecureRequestWarning)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            settings: dict[str, Any] = {"ssl_context": context}
            if self._name:
                settings |= {"server_hostname": self._name}
                if not self._skip_verify:
                    settings |= {"assert_hostname": self._name}
            url = urlsplit(self._url)
            proxy = getproxies().get(url.scheme)
            if proxy and not proxy_bypass(url.netloc):
                self._pool = ProxyManager(proxy, **settings)
            else:
                self._pool = PoolManager(**settings)
        return self._pool


def parse_url(options: Mapping[str, str]) -> str:
    """Where events are posted to. Raises InvalidParameter with dockerd's message."""
    if "splunk-url" not in options:
        raise InvalidParameter("splunk: splunk-url is expected")
    text = options["splunk-url"]
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        raise InvalidParameter(f"splunk: failed to parse {text} as url value in splunk-url") from None
    if (
        url.scheme not in ("http", "https")
        or not url.netloc
        or url.path not in ("", "/")
        or url.query
        or url.fragment
    ):
        raise InvalidParameter("splunk: expected format scheme://dns_name_or_ip:port for splunk-url")
    return f"{url.scheme}://{url.netloc}{_PATH}"


def _gzip_level(text: str) -> int:
    level = parse_int(text)
    if not -1 <= level <= 9:
        raise InvalidParameter(
            f"not supported level '{text}' for splunk-gzip-level (supported values between -1 and 9)"
        )
    return 6 if level < 0 else level


def _setting(name: str, default: int, parse: Any) -> int:
    text = os.environ.get(_SETTING + name, "")
    try:
        return int(parse(text)) if text else default
    except InvalidParameter as exc:
        _log.error("Failed to parse value of %s as %s: %s", _SETTING + name, "number or duration", exc)
        return default


def _reason(error: Exception, url: str) -> str:
    """What failed, as Go says it."""
    from urllib3 import exceptions

    place = urlsplit(url)
    if isinstance(error, exceptions.NameResolutionError):
        return f"dial tcp: lookup {place.hostname}: no such host"
    if isinstance(error, exceptions.NewConnectionError):
        cause = error.__cause__
        words = os.strerror(cause.errno).lower() if isinstance(cause, OSError) and cause.errno else str(error)
        port = place.port or (443 if place.scheme == "https" else 80)
        return f"dial tcp {place.hostname}:{port}: connect: {words}"
    if isinstance(error, exceptions.TimeoutError):
        return "context deadline exceeded"
    verification = getattr(error.args[0] if error.args else None, "verify_message", None)
    if isinstance(error, exceptions.SSLError) and verification:
        return f"tls: failed to verify certificate: {verification}"
    return str(error)
