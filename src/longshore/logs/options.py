"""Values of log options, parsed and refused as dockerd does (docker/go-units, strconv)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from longshore.errors import InvalidParameter

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp])?i?b?", re.IGNORECASE)
_TRUE = frozenset(["1", "t", "T", "TRUE", "true", "True"])
_FALSE = frozenset(["0", "f", "F", "FALSE", "false", "False"])


class Rotation(msgspec.Struct, frozen=True):
    """How a log file is rotated: at `max_size` bytes (None is never), keeping `max_files` files in all."""

    max_size: int | None = None
    max_files: int = 1
    compress: bool = False


def parse_rotation(options: Mapping[str, str], default: Rotation) -> Rotation:
    """Read max-size, max-file and compress. Raises InvalidParameter with dockerd's message."""
    max_size = default.max_size
    if "max-size" in options:
        max_size = parse_decimal_size(options["max-size"])
        if max_size <= 0:
            raise InvalidParameter("max-size must be a positive number")
    max_files = default.max_files
    if "max-file" in options:
        max_files = parse_int(options["max-file"])
        if max_files < 1:
            raise InvalidParameter("max-file cannot be less than 1")
    compress = default.compress
    if "compress" in options:
        compress = parse_bool(options["compress"])
    if compress and (max_files < 2 or max_size is None):
        if "compress" in options:
            raise InvalidParameter(
                "compress cannot be true when max-file is less than 2 or max-size is not set"
            )
        compress = False
    return Rotation(max_size, max_files, compress)


def parse_decimal_size(text: str) -> int:
    """Bytes in a human size, k meaning 1000 (units.FromHumanSize)."""
    return _parse_size(text, 1000)


def parse_binary_size(text: str) -> int:
    """Bytes in a human size, k meaning 1024 (units.RAMInBytes)."""
    return _parse_size(text, 1024)


def parse_bool(text: str) -> bool:
    """A boolean as strconv.ParseBool reads it."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidParameter(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_int(text: str) -> int:
    """A whole number as strconv.Atoi reads it."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _parse_size(text: str, base: int) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidParameter(f"invalid size: '{text}'")
    exponent = " kmgtp".index((match[2] or " ").lower())
    size = float(match[1]) * base**exponent
    if size >= 1 << 63:
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(size)
