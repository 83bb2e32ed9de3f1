"""tar-split: the part of a layer's archive that its files do not hold, so the archive can be made again.

The file format is that of github.com/vbatts/tar-split, which dockerd uses: gzipped JSON lines, each either a
segment of raw bytes or a file's name, size and CRC-64.
"""

from __future__ import annotations

import json
import os
import zlib
from binascii import b2a_base64
from collections.abc import Iterator
from posixpath import normpath
from typing import BinaryIO

import msgspec

from longshore.errors import InvalidParameter, System
from longshore.layers.checksum import Crc64
from longshore.linux.openat import openat2

_CHUNK = 1 << 20


class _Line(msgspec.Struct):
    type: int
    name: str = ""
    name_raw: bytes = b""
    size: int = 0
    payload: bytes | None = None


class TarSplitWriter:
    """Writes the lines to `file`; call `close` at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._gzip = zlib.compressobj(1, wbits=31)
        self._lines: list[str] = []
        self._position = 0
        self._names: set[str] = set()

    def segment(self, raw: bytes) -> None:
        """Bytes to be repeated as they are."""
        if raw:
            payload = b2a_base64(raw, newline=False).decode("ascii")
            self._add(f'{{"type":2,"payload":"{payload}","position":{self._position}}}\n')

    def file(self, name: str, size: int, checksum: bytes) -> None:
        """A file whose content is in the layer. Raises InvalidParameter for a name met before."""
        cleaned = normpath(name) if "//" in name or "./" in name or name[-1:] in "/." else name
        if cleaned in self._names:
            raise InvalidParameter("duplicates of file paths not supported")
        self._names.add(cleaned)
        if name.isascii() or _is_unicode(name):
            label = f'"name":{json.dumps(name, ensure_ascii=False)}'
        else:
            label = f'"name_raw":"{b2a_base64(os.fsencode(name), newline=False).decode("ascii")}"'
        if size:
            payload = b2a_base64(checksum, newline=False).decode("ascii")
            tail = f',"size":{size},"payload":"{payload}"'
        else:
            tail = ',"payload":null'
        self._add(f'{{"type":1,{label}{tail},"position":{self._position}}}\n')

    def close(self) -> None:
        """Write out what is pending. The file stays open."""
        self._flush()
        self._file.write(self._gzip.flush())

    def _add(self, line: str) -> None:
        self._position += 1
        self._lines.append(line)
        if len(self._lines) >= 512:
            self._flush()

    def _flush(self) -> None:
        self._file.write(self._gzip.compress("".join(self._lines).encode()))
        self._lines.clear()


def assemble(tar_split: str | os.PathLike[str], root: str | os.PathLike[str]) -> Iterator[bytes]:
    """The archive again, in chunks, with the files' content taken from the directory `root`.

    Raises System if a file is missing or not what it was.
    """
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        pending: list[bytes] = []
        length = 0
        for line in _lines(tar_split):
            if line.type == 2:
                pieces: Iterator[bytes] = iter((line.payload or b"",))
            elif line.size:
                pieces = _checked_content(directory, line)
            else:
                continue
            for piece in pieces:
                pending.append(piece)
                length += len(piece)
                if length >= _CHUNK:
                    yield b"".join(pending)
                    pending.clear()
                    length = 0
        yield b"".join(pending)
    finally:
        os.close(directory)


def archive_size(tar_split: str | os.PathLike[str]) -> int:
    """Length in bytes of the archive that `assemble` would give."""
    return sum(len(line.payload or b"") if line.type == 2 else line.size for line in _lines(tar_split))


def _lines(path: str | os.PathLike[str]) -> Iterator[_Line]:
    gunzip = zlib.decompressobj(wbits=31)
    decoder = msgspec.json.Decoder(_Line)
    rest = b""
    with open(path, "rb") as file:  # noqa: PTH123 - str or PathLike
        while chunk := file.read(_CHUNK):
            while chunk:
                *lines, rest = (rest + gunzip.decompress(chunk, _CHUNK)).split(b"\n")
                for line in lines:
                    if line:
                        yield decoder.decode(line)
                chunk = gunzip.unconsumed_tail
    if not gunzip.eof:
        raise System(f"{os.fspath(path)}: unexpected EOF")


def _checked_content(directory: int, line: _Line) -> Iterator[bytes]:
    name = line.name if line.name else os.fsdecode(line.name_raw)
    checksum = Crc64()
    try:
        file = openat2(directory, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        raise System(f"open {name}: {exc.strerror}") from None
    try:
        while chunk := os.read(file, _CHUNK):
            checksum.update(chunk)
            yield chunk
    finally:
        os.close(file)
    if checksum.digest() != line.payload:
        raise System(f'file integrity checksum failed for "{name}"')


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
