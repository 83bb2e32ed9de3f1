"""tar-split: the part of a layer's archive that its files do not hold, so the archive can be made again.

The file format is that of github.com/vbatts/tar-split, which dockerd uses: gzipped JSON lines, each either a
segment of raw bytes or a file's name, size and CRC-64.
"""

from __future__ import annotations

import errno
import os
import zlib
from binascii import b2a_base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from json.encoder import encode_basestring
from posixpath import normpath
from typing import BinaryIO

import msgspec

from longshore.errors import InvalidParameter, System
from longshore.layers.checksum import Crc64
from longshore.layers.overlaydiff import is_metacopy
from longshore.linux.openat import openat2

_CHUNK = 1 << 20


class _Line(msgspec.Struct):
    type: int
    name: str = ""
    name_raw: bytes = b""
    size: int = 0
    payload: bytes | None = None

    @property
    def path(self) -> str:
        return self.name or os.fsdecode(self.name_raw)


class TarSplitWriter:
    """Writes the lines to `file`; call `close` at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._gzip = zlib.compressobj(1, wbits=31)
        self._lines: list[bytes] = []
        self._position = 0
        self._names: set[str] = set()

    def segment(self, raw: bytes) -> None:
        """Bytes to be repeated as they are."""
        if raw:
            payload = b2a_base64(raw, newline=False)
            self._add(b'{"type":2,"payload":"%b","position":%d}\n' % (payload, self._position))

    def file(self, name: str, size: int, checksum: bytes) -> None:
        """A file whose content is in the layer. Raises InvalidParameter for a name met before."""
        cleaned = normpath(name) if "//" in name or "./" in name or name[-1:] in "/." else name
        if cleaned in self._names:
            raise InvalidParameter("duplicates of file paths not supported")
        self._names.add(cleaned)
        try:
            label = b'"name":' + encode_basestring(name).encode()
        except UnicodeEncodeError:
            label = b'"name_raw":"%b"' % b2a_base64(os.fsencode(name), newline=False)
        if size:
            tail = b',"size":%d,"payload":"%b"' % (size, b2a_base64(checksum, newline=False))
        else:
            tail = b',"payload":null'
        self._add(b'{"type":1,%b%b,"position":%d}\n' % (label, tail, self._position))

    def close(self) -> None:
        """Write out what is pending. The file stays open."""
        self._flush()
        self._file.write(self._gzip.flush())

    def _add(self, line: bytes) -> None:
        self._position += 1
        self._lines.append(line)
        if len(self._lines) >= 512:
            self._flush()

    def _flush(self) -> None:
        self._file.write(self._gzip.compress(b"".join(self._lines)))
        self._lines.clear()


def assemble(
    tar_split: str | os.PathLike[str],
    root: str | os.PathLike[str],
    merged: Callable[[], str | os.PathLike[str]] | None = None,
) -> Iterator[bytes]:
    """The archive again, in chunks, with the files' content taken from the directory `root`.

    `merged` gives a directory for those that overlayfs has left in layers below. Raises System if a file is
    missing or not what it was.
    """
    with ExitStack() as opened:
        directory = _opened(root, opened)
        whole: list[int] = []

        def content(line: _Line) -> int:
            with suppress(FileNotFoundError):
                file = _open_file(directory, line)
                if merged is None or not is_metacopy(file):
                    return file
                os.close(file)
            if merged is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), line.path)
            if not whole:
                whole.append(_opened(merged(), opened))
            return _open_file(whole[0], line)

        pending: list[bytes] = []
        length = 0
        for line in _lines(tar_split):
            if line.type == 2:
                pieces: Iterator[bytes] = iter((line.payload or b"",))
            elif line.size:
                pieces = _checked_content(line, content)
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


def _opened(directory: str | os.PathLike[str], until: ExitStack) -> int:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    until.callback(os.close, descriptor)
    return descriptor


def _open_file(directory: int, line: _Line) -> int:
    return openat2(directory, line.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)


def _checked_content(line: _Line, opened: Callable[[_Line], int]) -> Iterator[bytes]:
    checksum = Crc64()
    try:
        file = opened(line)
    except OSError as exc:
        raise System(f"open {line.path}: {exc.strerror}") from None
    try:
        while chunk := os.read(file, _CHUNK):
            checksum.update(chunk)
            yield chunk
    finally:
        os.close(file)
    if checksum.digest() != line.payload:
        raise System(f'file integrity checksum failed for "{line.path}"')
