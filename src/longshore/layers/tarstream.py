"""Reading a tar stream fast, and without losing a byte of it.

The layer store must be able to write the very same tar again, so everything that is not the content of a
regular file is kept as it came (`TarStream.raw`). Understands ustar, PAX and GNU archives, sparse files
included; `tarfile` understands them too, but takes ten times as long and drops the raw headers.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from longshore.errors import InvalidParameter

BLOCK = 512
_ZERO_BLOCK = bytes(BLOCK)
_LONGEST_SPECIAL = 1 << 20
"""PAX records and GNU long names beyond this are refused, as Go's archive/tar does."""

_MOST_SPECIALS = 16
_MOST_MAP_BLOCKS = 4096
_MOST_SPANS = 1 << 16
"""Pieces of one sparse file."""

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_WITHOUT_CONTENT = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))

REGULAR, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"


@dataclass(slots=True)
class TarEntry:
    """One member. Names are decoded as `os.fsdecode` does, so any bytes survive; mtime is nanoseconds."""

    name: str
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    """Bytes of content that follow in the stream."""
    mtime: int
    linkname: str = ""
    major: int = 0
    minor: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None
    """Where the content belongs: (offset, length) pairs; None for a file without holes."""
    real_size: int = 0
    """The file's length; differs from `size` for sparse files only."""


@contextmanager
def refusing_damage(entry: TarEntry) -> Iterator[None]:
    """Around making what `entry` describes. Raises InvalidParameter if nothing can be like that.

    That is an owner, device or time beyond the kernel's numbers, or a name with a NUL in it.
    """
    try:
        yield
    except (OverflowError, ValueError) as exc:
        raise InvalidParameter(f"archive/tar: invalid tar header: {entry.name!r}: {exc}") from None


class TarStream:
    """Iterate over the entries; take each entry's content before asking for the next entry."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        """`read` returns the next chunk of any length, and b"" at the end."""
        self._read = read
        self._buffer = b""
        self._at = 0
        self._left = 0
        self._padding = 0
        self._numbers: dict[bytes, int] = {}
        self._raw: list[bytes] = []

    def __iter__(self) -> Iterator[TarEntry]:
        while (entry := self.next()) is not None:
            yield entry

    def raw(self) -> bytes:
        """What came since the last call and is not content: headers, padding. Forgotten by the next entry."""
        raw = b"".join(self._raw)
        self._raw.clear()
        return raw

    def next(self) -> TarEntry | None:
        """The next entry, None at the end of the archive.

        Raises InvalidParameter if the archive is cut off or damaged.
        """
        self._raw.clear()
        for _ in self.content():
            pass
        if self._padding:
            if len(self._buffer) - self._at < self._padding:
                self._gather(self._padding)
            padding = self._buffer[self._at : self._at + self._padding]
            self._at += len(padding)
            self._raw.append(padding)
            if len(padding) < self._padding:
                return None  # The docker CLI ends contexts so that it adds files to; Go does not mind.
            self._padding = 0
        pax: dict[str, bytes] = {}
        long_name = long_link = b""
        # A handful of records may come before an entry; without end they would only fill the memory.
        for _ in range(_MOST_SPECIALS):
            block = self._block()
            if block is None:
                return None
            self._raw.append(block)
            kind = block[156:157]
            if kind == b"x":
                pax = parse_pax(self._special(block))
            elif kind == b"g":
                self._special(block)
            elif kind == b"L":
                long_name = self._special(block).split(b"\0", 1)[0]
            elif kind == b"K":
                long_link = self._special(block).split(b"\0", 1)[0]
            else:
                return self._entry(block, pax, long_name, long_link)
        raise InvalidParameter("archive/tar: invalid tar header: too many records before an entry")

    def content(self) -> Iterator[bytes]:
        """The current entry's content, or what is left of it, in chunks."""
        while self._left:
            if self._at >= len(self._buffer):
                self._fill()
            chunk = self._buffer[self._at : self._at + self._left]
            self._at += len(chunk)
            self._left -= len(chunk)
            yield chunk

    def all_content(self) -> bytes:
        """The current entry's content at once; for entries known to be small."""
        at, end = self._at, self._at + self._left
        if end <= len(self._buffer):
            self._at = end
            self._left = 0
            return self._buffer[at:end]
        return b"".join(self.content())

    def rest(self) -> Iterator[bytes]:
        """Whatever follows the end of the archive: more padding, usually."""
        if self._at < len(self._buffer):
            yield self._buffer[self._at :]
        self._buffer, self._at = b"", 0
        while chunk := self._read():
            yield chunk

    def _entry(self, block: bytes, pax: dict[str, bytes], long_name: bytes, long_link: bytes) -> TarEntry:
        fields = _HEADER.unpack(block)
        name, mode, uid, gid, size, mtime, _, kind, linkname, magic, _, _, major, minor, prefix = fields
        name = name.split(b"\0", 1)[0]
        if prefix[0] and magic == b"ustar\x0000":
            name = prefix.split(b"\0", 1)[0] + b"/" + name
        entry = TarEntry(
            os.fsdecode(long_name or name),
            REGULAR if kind in (b"\0", b"7") else kind,
            self._number(mode) & 0o7777,
            self._number(uid),
            self._number(gid),
            _number(size),
            _number(mtime) * 1_000_000_000,
            os.fsdecode(long_link or linkname.split(b"\0", 1)[0]) if kind in b"12" or long_link else "",
        )
        if kind in (CHAR, BLOCK_DEVICE):
            entry.major, entry.minor = self._number(major), self._number(minor)
        if pax:
            _apply_pax(entry, pax)
        if entry.type == REGULAR and entry.name.endswith("/"):
            entry.type = DIRECTORY
        if kind in _WITHOUT_CONTENT:
            entry.size = 0
        if entry.size < 0:
            raise InvalidParameter(f"archive/tar: invalid tar header: {entry.name}: negative size")
        entry.real_size = entry.real_size or entry.size
        self._left = entry.size
        self._padding = -entry.size % BLOCK
        if kind == b"S":
            entry.type = REGULAR
            self._old_gnu_sparse(entry, block)
        elif "GNU.sparse.major" in pax or "GNU.sparse.map" in pax:
            try:
                self._pax_sparse(entry, pax)
            except ValueError:
                raise InvalidParameter(f"archive/tar: invalid tar header: {entry.name}: sparse map") from None
        return entry

    def _old_gnu_sparse(self, entry: TarEntry, block: bytes) -> None:
        entry.real_size = _number(block[483:495])
        spans = [block[386 + 24 * i : 410 + 24 * i] for i in range(4)]
        extended = block[482]
        while extended:
            if len(spans) > _MOST_SPANS:
                raise InvalidParameter(f"archive/tar: invalid tar header: {entry.name}: sparse map")
            more = self._exactly(BLOCK)
            self._raw.append(more)
            spans += [more[24 * i : 24 * i + 24] for i in range(21)]
            extended = more[504]
        entry.sparse = [(_number(span[:12]), _number(span[12:])) for span in spans if span[0]]
        _check_sparse(entry)

    def _pax_sparse(self, entry: TarEntry, pax: dict[str, bytes]) -> None:
        if "GNU.sparse.map" in pax:
            numbers = [int(number) for number in pax["GNU.sparse.map"].split(b",") if number]
        else:
            # Version 1.0 writes the map in front of the content: a decimal count, then two numbers a span.
            consumed = self._sparse_map_block()
            wanted = 1
            while consumed.count(b"\n") < wanted:
                consumed += self._sparse_map_block()
                wanted = 1 + 2 * int(consumed.split(b"\n", 1)[0])
                if wanted > _LONGEST_SPECIAL:
                    raise InvalidParameter(f"archive/tar: invalid tar header: {entry.name}: sparse map")
            wanted = 1 + 2 * int(consumed.split(b"\n", 1)[0])
            while consumed.count(b"\n") < wanted:
                consumed += self._sparse_map_block()
            numbers = [int(number) for number in consumed.split(b"\n")[1:wanted]]
            entry.size = self._left
        entry.sparse = list(zip(numbers[::2], numbers[1::2], strict=False))
        _check_sparse(entry)

    def _sparse_map_block(self) -> bytes:
        if self._left < BLOCK or len(self._raw) > _MOST_MAP_BLOCKS:
            raise InvalidParameter("archive/tar: invalid tar header: sparse map")
        block = self._exactly(BLOCK)
        self._raw.append(block)
        self._left -= BLOCK
        return block

    def _block(self) -> bytes | None:
        """A header block whose checksum is right; None at the end of the archive."""
        at = self._at
        if len(self._buffer) - at < BLOCK:
            self._gather(BLOCK)
            at = self._at
            if at == len(self._buffer):
                return None
        block = self._exactly(BLOCK)
        if block[0] == 0 and block == _ZERO_BLOCK:
            self._raw.append(block)
            return None
        # The checksum is the sum of all bytes, its own field taken as blanks. Adler-32's low half is one
        # plus that sum modulo 65521, and comes from C.
        total = zlib.adler32(block[156:], zlib.adler32(block[:148])) - 1 + 256
        if (total - _number(block[148:156])) & 0xFFFF and not _checksum_is_right(block):
            raise InvalidParameter("archive/tar: invalid tar header")
        return block

    def _special(self, block: bytes) -> bytes:
        size = _number(block[124:136])
        if not 0 <= size <= _LONGEST_SPECIAL:
            raise InvalidParameter("archive/tar: header field too long")
        content = self._exactly(size + -size % BLOCK)
        self._raw.append(content)
        return content[:size]

    def _number(self, raw: bytes) -> int:
        number = self._numbers.get(raw)
        if number is None:
            number = _number(raw)
            if len(self._numbers) < 4096:
                self._numbers[raw] = number
        return number

    def _exactly(self, count: int) -> bytes:
        if len(self._buffer) - self._at < count:
            self._gather(count)
            if len(self._buffer) - self._at < count:
                raise InvalidParameter("unexpected EOF")
        at = self._at
        self._at = at + count
        return self._buffer[at : at + count]

    def _gather(self, count: int) -> None:
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        while have < count and (chunk := self._read()):
            parts.append(chunk)
            have += len(chunk)
        self._buffer, self._at = b"".join(parts), 0

    def _fill(self) -> None:
        self._buffer, self._at = self._read(), 0
        if not self._buffer:
            raise InvalidParameter("unexpected EOF")


def parse_pax(content: bytes) -> dict[str, bytes]:
    """Split PAX records (`length key=value\\n`); see pax(1)."""
    records: dict[str, bytes] = {}
    at = 0
    sparse: list[bytes] = []
    while at < len(content):
        blank = content.find(b" ", at)
        try:
            length = int(content[at:blank])
        except ValueError:
            raise InvalidParameter("archive/tar: invalid tar header: PAX records") from None
        end = at + length
        key, equals, value = content[blank + 1 : end - 1].partition(b"=")
        if blank < 0 or end > len(content) or end <= blank or content[end - 1] != 0x0A or not equals:
            raise InvalidParameter("archive/tar: invalid tar header: PAX records")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            # Version 0.0 repeats these two keys; as a list they are version 0.1's map.
            sparse.append(value)
        records[key.decode("utf-8", "surrogateescape")] = value
        at = end
    if sparse:
        records["GNU.sparse.map"] = b",".join(sparse)
    return records


def _apply_pax(entry: TarEntry, pax: dict[str, bytes]) -> None:
    try:
        for key, value in pax.items():
            if key.startswith("SCHILY.xattr."):
                entry.xattrs[key[13:]] = value
            elif key in ("path", "GNU.sparse.name"):
                if value and (key != "path" or "GNU.sparse.name" not in pax):
                    entry.name = os.fsdecode(value)
            elif key == "linkpath":
                entry.linkname = os.fsdecode(value)
            elif key == "size":
                entry.size = int(value)
            elif key == "uid":
                entry.uid = int(value)
            elif key == "gid":
                entry.gid = int(value)
            elif key == "mtime":
                entry.mtime = _nanoseconds(value)
            elif key in ("GNU.sparse.realsize", "GNU.sparse.size"):
                entry.real_size = int(value)
    except ValueError:
        raise InvalidParameter("archive/tar: invalid tar header: PAX records") from None


def _nanoseconds(value: bytes) -> int:
    whole, _, fraction = value.partition(b".")
    nanoseconds = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    sign = -1 if whole.startswith(b"-") else 1
    return int(whole) * 1_000_000_000 + sign * nanoseconds


def _check_sparse(entry: TarEntry) -> None:
    end = 0
    for offset, length in entry.sparse or ():
        if offset < end or length < 0:
            raise InvalidParameter(f"archive/tar: invalid tar header: {entry.name}: sparse map")
        end = offset + length
    if end > entry.real_size or sum(length for _, length in entry.sparse or ()) != entry.size:
        raise InvalidParameter(f"archive/tar: invalid tar header: {entry.name}: sparse map")


def _checksum_is_right(block: bytes) -> bool:
    # Some ancient writers summed signed bytes.
    parts = block[:148] + block[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in parts) + 256
    return _number(block[148:156]) in (signed, sum(parts) + 256)


def _number(raw: bytes) -> int:
    if raw[0] & 0x80:
        number = int.from_bytes(raw, "big", signed=True)
        return number if raw[0] == 0xFF else number + (1 << (8 * len(raw) - 1))
    try:
        return int(raw.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        raise InvalidParameter("archive/tar: invalid tar header") from None
