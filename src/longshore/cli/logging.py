"""The daemon's own log on stderr, in dockerd's two formats."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}


def set_up_logging(level: str, kind: str) -> None:
    """Log to stderr from `level` (a key of LEVELS) on, as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else LogfmtFormatter())
    logging.basicConfig(handlers=[handler], level=LEVELS[level], force=True)
    # Libraries have nothing to tell an operator below a warning.
    for name in ("asyncio", "grpclib", "hpack", "h2"):
        logging.getLogger(name).setLevel(logging.WARNING)


class LogfmtFormatter(logging.Formatter):
    """time="…" level=info msg="…", as logrus writes without a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{name}={_quoted(value)}" for name, value in _fields(self, record).items())


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return msgspec.json.encode(_fields(self, record)).decode()


def _fields(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    moment = datetime.fromtimestamp(record.created, UTC)
    fields = {
        "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{int(record.created % 1 * 1e9):09}Z",
        "level": _NAMES.get(record.levelno, "fatal"),
        "msg": record.getMessage(),
        "module": record.name,
    }
    if record.exc_info:
        fields["stack"] = formatter.formatException(record.exc_info)
    return fields


def _quoted(value: str) -> str:
    if value and all(char.isalnum() or char in "-._/@^+" for char in value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
