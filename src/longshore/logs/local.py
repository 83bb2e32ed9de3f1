"""The local driver: length-prefixed protobuf records, as dockerd's local log driver keeps them.

A record is its size (4 bytes, big endian), a LogEntry message (api/types/plugins/logdriver/entry.proto),
and its size again, which lets a reader walk backwards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from longshore.errors import InvalidParameter
from longshore.logs.info import LogInfo
from longshore.logs.lines import PIECE
from longshore.logs.logfile import LogFile
from longshore.logs.options import Rotation, parse_bool, parse_decimal_size, parse_int
from longshore.logs.records import Record
from longshore.types.timestamp import rfc3339_fixed

_DEFAULT_SIZE = 20_000_000
_DEFAULT_FILES = 5
# Field number and wire type of LogEntry's fields.
_SOURCE, _TIME, _LINE, _PARTIAL = 0x0A, 0x10, 0x1A, 0x20
_LINE_KEY = bytes([_LINE])
# A record up to its line's length: the source, of six letters, and a time of this century.
_HEAD = 2 + 6 + 1 + 9 + 1


class LocalDriver:
    """Writes LogEntry records."""

    name = "local"
    synchronous = True
    piece = PIECE

    def __init__(self, file: LogFile) -> None:
        self.file: LogFile | None = file
        self._file = file

    @classmethod
    def open(cls, options: Mapping[str, str], info: LogInfo) -> LocalDriver:
        """Open or go on with the container's log. Raises InvalidParameter and OSError."""
        return cls(LogFile(info.log_path, _rotation(options), cut_records, repair_records))

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


def _rotation(options: Mapping[str, str]) -> Rotation:
    """As dockerd's own, this driver checks and words its options a little differently than json-file."""
    size = count = 0
    compress = True
    try:
        size = parse_decimal_size(options.get("max-size", "0"))
    except InvalidParameter as exc:
        raise InvalidParameter(f"invalid value for max-size: {options['max-size']}: {exc.message}") from None
    try:
        count = parse_int(options.get("max-file", str(_DEFAULT_FILES)))
    except InvalidParameter as exc:
        raise InvalidParameter(f"invalid value for max-file: {options['max-file']}: {exc.message}") from None
    try:
        compress = parse_bool(options.get("compress", "true"))
    except InvalidParameter as exc:
        raise InvalidParameter(f"error reading compress log option: {exc.message}") from None
    if compress and count <= 1:
        raise InvalidParameter("compression cannot be enabled when max file count is 1")
    if count < 1:
        raise InvalidParameter("max file count cannot be less than 1")
    return Rotation(size or _DEFAULT_SIZE, count, compress)


def cut_records(data: bytes, minimum: int) -> tuple[int, int]:
    """The end of the first record that ends at or behind `minimum`, and how many records that are."""
    end = count = 0
    while end < minimum and end < len(data):
        end += int.from_bytes(data[end : end + 4], "big") + 8
        count += 1
    return end, count


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

    def sound(self, data: bytes) -> int:
        """See Format."""
        return self.whole(data)

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
        records, end, length = [], 0, len(data)
        # Most records are whole lines, and many were written at one time: their beginnings are the same
        # bytes, which need be decoded only once.
        known: dict[bytes, tuple[str, str]] = {}
        while end + 8 <= length:
            start = end + 4
            stop = start + int.from_bytes(data[end:start], "big")
            end = stop + 4
            if end > length:
                break
            head = start + _HEAD
            begin = head + (1 if stop - head <= 0x80 else 2)
            if (found := known.get(data[start:head])) and (
                (begin == head + 1 and data[head] == stop - begin)
                or (data[head] & 0x7F | data[head + 1] << 7 == stop - begin)
            ):
                line = data[begin:stop].decode("utf-8", "surrogateescape")
                records.append(Record(line + "\n", found[0], found[1]))
                continue
            record = _decode(data, start, stop)
            records.append(record)
            if data[head - 1 : head] == _LINE_KEY and len(record.stream) == 6:
                known[data[start:head]] = (record.stream, record.time)
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
