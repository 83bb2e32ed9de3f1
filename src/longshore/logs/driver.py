"""What a log driver is, and the registry of those there are.

The names of options and the wording of errors are dockerd's (daemon/logger).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from longshore.errors import InvalidParameter
from longshore.logs.info import LogInfo
from longshore.logs.logfile import LogFile
from longshore.logs.options import parse_binary_size


class LogDriver(Protocol):
    """Keeps what one run of a container writes. `log` is called from the pump's thread only."""

    name: str
    file: LogFile | None
    """Where the log can be read back from; None if this driver cannot be read."""

    def log(self, stream: str, block: bytes, time_ns: int, partial: bool) -> None:
        """Keep `block`: whole lines, each with its newline, or, if `partial`, a piece of a line without.

        `time_ns` is wall clock, nanoseconds since the epoch. Raises OSError if the block cannot be kept.
        """

    def close(self) -> None:
        """Let go of everything; may block until what was accepted is kept. Followers see the end."""


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
_DEFAULT_BUFFER = 1_000_000


def log_driver_names() -> list[str]:
    """The drivers there are, as `docker info` lists them."""
    return ["json-file", "local", "none"]


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
    known = _OPTIONS.get(name)
    if known is None:
        # dockerd would try for a plug-in of that name.
        raise InvalidParameter(f'error looking up logging plugin {name}: plugin "{name}" not found')
    for key in options:
        if key not in known and key not in _BUILT_IN:
            what = f"{name} log driver" if name == "json-file" else f"log driver {name}"
            raise InvalidParameter(f"unknown log opt '{key}' for {what}")


def create_log_driver(name: str, options: Mapping[str, str], info: LogInfo) -> LogDriver | None:
    """Open the log of a container that is about to start; `none` is no driver at all.

    Raises InvalidParameter for an option's value, worded as dockerd words it, and OSError if the log
    cannot be opened.
    """
    validate_log_opts(name, options)
    if name == "none":
        return None
    driver = _factory(name)(options, info)
    if options.get("mode") != "non-blocking":
        return driver
    from longshore.logs.ring import RingDriver

    size = options.get("max-buffer-size")
    return RingDriver(driver, parse_binary_size(size) if size else _DEFAULT_BUFFER)


def _factory(name: str) -> Factory:
    if name == "local":
        from longshore.logs.local import LocalDriver

        return LocalDriver.open
    from longshore.logs.jsonfile import JsonFileDriver

    return JsonFileDriver.open
