"""From a layer's archive to its files and its tar-split, verifying and hashing on the way.

One thread reads, decompresses and hashes, the caller's thread writes files; a few chunks between them are
all that is held in memory.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

from longshore.layers.checksum import Crc64, crc64
from longshore.layers.compression import decompressed
from longshore.layers.tarsplit import TarSplitWriter
from longshore.layers.tarstream import REGULAR, TarEntry, TarStream, refusing_damage

_SMALL = 64 * 1024


class Unpacked(NamedTuple):
    """What a layer's archive turned out to be."""

    diff_id: str
    size: int


class Sink(Protocol):
    """Where entries go: an `Extractor`, mostly."""

    size: int

    def __enter__(self) -> object: ...

    def __exit__(self, kind: object, *_: object) -> object: ...

    def add(self, entry: TarEntry, content: Iterator[bytes] | bytes) -> bool: ...


def unpack(archive: BinaryIO, extractor: Sink, tar_split: BinaryIO) -> Unpacked:
    """Extract `archive`, compressed or not, and write its tar-split.

    Raises InvalidParameter for an archive that is damaged or not acceptable.
    """
    writer = TarSplitWriter(tar_split)
    with extractor, _HashingReader(decompressed(archive)) as reader:
        stream = TarStream(reader.read)
        for entry in stream:
            with refusing_damage(entry):
                _unpack_entry(entry, stream, extractor, writer)
        writer.segment(stream.raw())
        for chunk in stream.rest():
            writer.segment(chunk)
    writer.close()
    return Unpacked(f"sha256:{reader.hexdigest()}", extractor.size)


def _unpack_entry(entry: TarEntry, stream: TarStream, extractor: Sink, writer: TarSplitWriter) -> None:
    if not entry.size:
        extractor.add(entry, b"")
        writer.segment(stream.raw())
        writer.file(entry.name, 0, b"")
    elif entry.type != REGULAR or entry.sparse is not None or ".wh." in entry.name:
        # The file to be will not hold these bytes as they are, so they go with the headers.
        writer.segment(stream.raw())
        writer.file(entry.name, 0, b"")
        extractor.add(entry, _kept(stream, writer))
        for chunk in stream.content():
            writer.segment(chunk)
    elif entry.size <= _SMALL:
        content = stream.all_content()
        extractor.add(entry, content)
        writer.segment(stream.raw())
        writer.file(entry.name, entry.size, crc64(content))
    else:
        checksum = Crc64()
        extractor.add(entry, _summed(stream, checksum))
        writer.segment(stream.raw())
        writer.file(entry.name, entry.size, checksum.digest())


def _kept(stream: TarStream, writer: TarSplitWriter) -> Iterator[bytes]:
    for chunk in stream.content():
        writer.segment(chunk)
        yield chunk


def _summed(stream: TarStream, checksum: Crc64) -> Iterator[bytes]:
    for chunk in stream.content():
        checksum.update(chunk)
        yield chunk


class _HashingReader:
    """Reads ahead in a thread of its own, and knows the digest of all that was read."""

    def __init__(self, source: Callable[[], bytes]) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(maxsize=4)
        self._stopped = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="layer-reader", daemon=True)

    def __enter__(self) -> _HashingReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._chunks.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def read(self) -> bytes:
        if self._ended:
            return b""
        chunk = self._chunks.get()
        if isinstance(chunk, BaseException):
            self._ended = True
            raise chunk
        self._ended = not chunk
        return chunk

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                chunk = self._source()
                self._digest.update(chunk)
                self._chunks.put(chunk)
                if not chunk:
                    return
        except BaseException as exc:
            self._chunks.put(exc)
