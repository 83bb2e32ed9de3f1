"""What a log driver is, and the registry of those there are.

The names of options and the wording of errors are dockerd's (daemon/logger).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from longshore.errors import InvalidParameter
from longshore.logs.info import LogInfo, caches
from longshore.logs.logfile import LogFile
from longshore.logs.options import parse_binary_size, parse_bool


class LogDriver(Protocol):
    """Keeps what one run of a container writes. `log` is called from the pump's thread only."""

    name: str
    file: LogFile | None
    """Where the log can be read back from; None if this driver cannot be read."""
    synchronous: bool
    """Whether `file` has everything that was given to `log`."""
    piece: int
    """Bytes of a line from which on it is kept in pieces of that size."""

    def log(self, stream: str, block: bytes, time_ns: int, partial: bool) -> None:
        """Keep `block`: whole lines, each with its newline, or, if `partial`, a piece of a line without.

        `time_ns` is wall clock, nanoseconds since the epoch. Raises OSError if the block cannot be kept.
        """

    def close(self) -> None:
        """Let go of everything; may block until what was accepted is kept. Followers see the end."""


@runtime_checkable
class Queueing(Protocol):
    """A driver that may have to let its container wait; then the pump does not read it for a while."""

    on_room: Callable[[], None] | None
    """Called, on a thread of the driver's, when it is no longer full."""

    def is_full(self) -> bool:
        """Whether the container has to wait."""


Factory = Callable[[Mapping[str, str], LogInfo], LogDriver]

# Options that dockerd itself takes for every driver (daemon/logger/factory.go).
_BUILT_IN = frozenset(
    ["mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"]
)
_JSON_FILE_OPTIONS = frozenset(
    ["max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"]
)
_OPTIONS: dict[str, frozenset[str]] = {
    "json-file": _JSON_FILE_OPTIONS,
    "local": frozenset(["max-file", "max-size", "compress"]),
}
_REMOTE = ("fluentd", "gelf", "journald", "splunk", "syslog")
_DEFAULT_BUFFER = 1_000_000


def log_driver_names() -> list[str]:
    """The drivers there are, as `docker info` lists them."""
    return sorted(["json-file", "local", *_REMOTE])


def validate_log_opts(name: str, options: Mapping[str, str]) -> None:
    """Check that the driver `name` exists and knows all of `options`; `none` takes anything.

    Raises InvalidParameter with dockerd's message.
    """
    if name == "none":
        return
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidParameter(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        try:
            parse_binary_size(options["max-buffer-size"])
        except InvalidParameter as exc:
            raise InvalidParameter(f"error parsing option max-buffer-size: {exc.message}") from None
    if disabled := options.get("cache-disabled"):
        try:
            parse_bool(disabled)
        except InvalidParameter:
            raise InvalidParameter(f"invalid value for option cache-disabled: {disabled}") from None
    known = _remote(name).OPTIONS if name in _REMOTE else _OPTIONS.get(name)
    if known is None:
        # dockerd would try for a plug-in of that name.
        raise InvalidParameter(f'error looking up logging plugin {name}: plugin "{name}" not found')
    for key in options:
        if key not in known and key not in _BUILT_IN:
            what = f"log driver {name}" if name == "local" else f"{name} log driver"
            quoted = f'"{key}"' if name == "gelf" else f"'{key}'"
            raise InvalidParameter(f"unknown log opt {quoted} for {what}")
    if name in _REMOTE:
        _remote(name).validate(options)


def create_log_driver(name: str, options: Mapping[str, str], info: LogInfo) -> LogDriver | None:
    """Open the log of a container that is about to start; `none` is no driver at all.

    Raises InvalidParameter for an option's value, worded as dockerd words it, and OSError if the log
    cannot be opened.
    """
    validate_log_opts(name, options)
    if name == "none":
        return None
    if name in _REMOTE:
        return _open_remote(name, options, info)
    driver = _factory(name)(options, info)
    if options.get("mode") != "non-blocking":
        return driver
    from longshore.logs.ring import RingDriver

    size = options.get("max-buffer-size")
    return RingDriver(driver, parse_binary_size(size) if size else _DEFAULT_BUFFER)


def is_remote(name: str) -> bool:
    """Whether the driver sends the log elsewhere, so that opening it may take a while."""
    return name in _REMOTE


def _open_remote(name: str, options: Mapping[str, str], info: LogInfo) -> LogDriver:
    from longshore.logs.cache import open_cache
    from longshore.logs.delivery import DEFAULT_CAPACITY, QueueLimit, RemoteDriver

    sender = _remote(name).open_sender(options, info)
    try:
        sender.connect()
    except OSError:
        if info.must_connect:
            raise
    try:
        cache = open_cache(options, info) if caches(options) else None
    except BaseException:
        sender.abort()
        raise
    limit = sender.limit or QueueLimit(DEFAULT_CAPACITY)
    if options.get("mode") == "non-blocking":
        size = options.get("max-buffer-size")
        limit = QueueLimit(parse_binary_size(size) if size else _DEFAULT_BUFFER, lossy=True)
    return RemoteDriver(name, sender, limit, cache)


def _remote(name: str) -> Any:
    """The module of a driver that sends: its OPTIONS, `validate` and `open_sender`."""
    return importlib.import_module(f"longshore.logs.{name}")


def _factory(name: str) -> Factory:
    if name == "local":
        from longshore.logs.local import LocalDriver

        return LocalDriver.open
    from longshore.logs.jsonfile import JsonFileDriver

    return JsonFileDriver.open
