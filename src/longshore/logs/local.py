"""The local driver: length-prefixed protobuf records, as dockerd's local log driver keeps them.

A record is its size (4 bytes, big endian), a LogEntry message (api/types/plugins/logdriver/entry.proto),
and its size again, which lets a reader walk backwards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from longshore.logs.info import LogInfo
from longshore.logs.jsonfile import rfc3339_fixed
from longshore.logs.logfile import LogFile
from longshore.logs.options import Rotation, parse_rotation
from longshore.logs.records import Record

_DEFAULT = Rotation(max_size=20_000_000, max_files=5, compress=True)
# Field number and wire type of LogEntry's fields.
_SOURCE, _TIME, _LINE, _PARTIAL = 0x0A, 0x10, 0x1A, 0x20


class LocalDriver:
    """Writes LogEntry records."""

    name = "local"

    def __init__(self, file: LogFile) -> None:
        self.file: LogFile | None = file
        self._file = file

    @classmethod
    def open(cls, options: Mapping[str, str], info: LogInfo) -> LocalDriver:
        """Open or go on with the container's log. Raises InvalidParameter and OSError."""
        rotation = parse_rotation(options, _DEFAULT)
        return cls(LogFile(info.log_path, rotation, cut_records, repair_records))

    def log(self, stream: str, block: bytes, time_ns: int, partial: bool) -> None:
        """See LogDriver."""
        source = stream.encode()
        head = bytes([_SOURCE, len(source)]) + source + bytes([_TIME]) + _varint(time_ns) + bytes([_LINE])
        tail = bytes([_PARTIAL, 1]) if partial else b""
        parts: list[bytes] = []
        for line in [block] if partial else block.split(b"\n")[:-1]:
            entry = b"%b%b%b%b" % (head, _varint(len(line)), line, tail)
            size = len(entry).to_bytes(4, "big")
            parts += (size, entry, size)
        self._file.append(b"".join(parts))

    def close(self) -> None:
        """See LogDriver."""
        self._file.close()


def cut_records(data: bytes, minimum: int) -> int:
    """The end of the first record that ends at or behind `minimum`."""
    end = 0
    while end < minimum and end < len(data):
        end += int.from_bytes(data[end : end + 4], "big") + 8
    return end


def repair_records(fd: int, size: int) -> int:
    """Cut off a last record that a crash left torn. Gives the size that is left."""
    offsets = _offsets(fd)
    if offsets[-1] != size:
        os.ftruncate(fd, offsets[-1])
    return offsets[-1]


class LocalFormat:
    """Reads them."""

    def whole(self, data: bytes) -> int:
        """See Format."""
        end = 0
        while end + 8 <= len(data):
            following = end + int.from_bytes(data[end : end + 4], "big") + 8
            if following > len(data):
                break
            end = following
        return end

    def tail(self, fd: int, count: int) -> tuple[int, int]:
        """Walk backwards by the sizes at the end; through the whole file if that leads astray."""
        position, found = os.fstat(fd).st_size, 0
        while position and found < count:
            size = os.pread(fd, 4, max(0, position - 4))
            start = position - int.from_bytes(size, "big") - 8
            if start < 0 or os.pread(fd, 4, start) != size:
                offsets = _offsets(fd)[:-1]
                kept = min(count, len(offsets))
                return (offsets[-kept] if kept else os.fstat(fd).st_size), kept
            position, found = start, found + 1
        return position, found

    def decode(self, data: bytes) -> Sequence[Record]:
        """See Format."""
        records, end = [], 0
        while end + 8 <= len(data):
            start = end + 4
            end = start + int.from_bytes(data[end:start], "big") + 4
            if end > len(data):
                break
            records.append(_decode(data, start, end - 4))
        return records


def _decode(data: bytes, position: int, end: int) -> Record:
    record, partial = Record(), False
    while position < end:
        key, position = _read_varint(data, position)
        value, position = _read_varint(data, position)
        if key & 7 == 2:
            field = data[position : position + value]
            position += value
            if key == _SOURCE:
                record.stream = field.decode()
            elif key == _LINE:
                record.log = field.decode("utf-8", "surrogateescape")
            elif field[:2] == b"\x08\x01":  # PartialLogEntryMetadata.last
                partial = False
        elif key == _TIME:
            record.time = rfc3339_fixed(value)
        elif key == _PARTIAL:
            partial = bool(value)
    if not partial:
        record.log += "\n"
    return record


def _offsets(fd: int) -> list[int]:
    """Where each whole record begins, and last where the last one ends."""
    offsets, position = [0], 0
    while len(head := os.pread(fd, 4, position)) == 4:
        end = position + int.from_bytes(head, "big") + 8
        if os.pread(fd, 4, end - 4) != head:
            break
        position = end
        offsets.append(position)
    return offsets


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
