"""The json-file driver: a JSON object a line, byte for byte as dockerd's jsonlog package writes it."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Mapping

import msgspec

from longshore.logs.info import LogInfo, extra_attributes
from longshore.logs.lines import PIECE
from longshore.logs.logfile import LogFile
from longshore.logs.options import Rotation, parse_rotation
from longshore.types.timestamp import rfc3339_nano


class JsonFileDriver:
    """Writes `{"log":"…\\n","stream":"stdout","time":"…"}` lines, whole chunks of them at a time."""

    name = "json-file"
    synchronous = True
    piece = PIECE

    def __init__(self, file: LogFile, attributes: Mapping[str, str]) -> None:
        self.file: LogFile | None = file
        self._file = file
        encoded = msgspec.json.encode(dict(sorted(attributes.items())))
        self._attributes = b',"attrs":' + encoded if attributes else b""

    @classmethod
    def open(cls, options: Mapping[str, str], info: LogInfo) -> JsonFileDriver:
        """Open or go on with the container's log. Raises InvalidParameter and OSError."""
        rotation = parse_rotation(options, Rotation())
        attributes = extra_attributes(options, info)
        return cls(LogFile(info.log_path, rotation, cut_lines, end_torn_line), attributes)

    def log(self, stream: str, block: bytes, time_ns: int, partial: bool) -> None:
        """See LogDriver."""
        moment = rfc3339_nano(time_ns).encode()
        end = b'","stream":"%b"%b,"time":"%b"}\n' % (stream.encode(), self._attributes, moment)
        escaped = escape(block)
        if partial:
            record = b'{"log":"' + escaped + end
        else:
            # A newline that is data was left as it is by `escape`, so each one ends a record.
            record = b'{"log":"' + escaped.replace(b"\n", b"\\n" + end + b'{"log":"')[:-8]
        self._file.append(record)

    def close(self) -> None:
        """See LogDriver."""
        self._file.close()


def cut_lines(data: bytes, minimum: int) -> tuple[int, int]:
    """The end of the first line of `data` that ends at or behind `minimum`, and how many lines that are."""
    end = data.find(b"\n", max(0, minimum - 1)) + 1 or len(data)
    return end, data.count(b"\n", 0, end)


def end_torn_line(fd: int, size: int) -> int:
    """Give a torn last line an end, so that only it is lost. Gives the new size."""
    return size + (os.write(fd, b"\n") if os.pread(fd, 1, size - 1) != b"\n" else 0)


_COMMON = (
    (b"\r", b"\\r"),
    (b"\t", b"\\u0009"),
    (b"\x1b", b"\\u001b"),
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
)
_RARE = bytes(code for code in range(0x20) if code not in b"\n\r\t\x1b")
_RARE_PATTERN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def escape(block: bytes) -> bytes:
    """Escape as Go's jsonlog does, newlines excepted: `<>&` too, and what is not UTF-8 as \\ufffd."""
    if b"\\" in block:
        block = block.replace(b"\\", b"\\\\")
    if b'"' in block:
        block = block.replace(b'"', b'\\"')
    for plain, escaped in _COMMON:
        if plain in block:
            block = block.replace(plain, escaped)
    if len(block.translate(None, _RARE)) != len(block):
        block = _RARE_PATTERN.sub(lambda match: b"\\u%04x" % match[0][0], block)
    if not block.isascii():
        text = block.decode("utf-8", "longshore-ufffd")
        block = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").encode()
    return block


def _replace_one_byte(error: UnicodeError) -> tuple[str, int]:
    # Go replaces every byte that does not fit; Python would take a cut-off sequence as one.
    assert isinstance(error, UnicodeDecodeError)
    return "\\ufffd", error.start + 1


codecs.register_error("longshore-ufffd", _replace_one_byte)
