"""Making layers of files that are in place already, instead of unpacking an archive of them."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from longshore.layers.checksum import Crc64, crc64
from longshore.layers.difftar import Member, diff_members, padding
from longshore.layers.driver import Change
from longshore.layers.extract import WHITEOUT
from longshore.layers.idmap import IdMap
from longshore.layers.tarsplit import TarSplitWriter
from longshore.layers.tarstream import BLOCK, SYMLINK
from longshore.layers.unpack import Unpacked

_CHUNK = 1 << 20
_AHEAD = 4
"""Chunks that wait to be hashed."""


def can_be_sealed(changes: list[Change]) -> bool:
    """Whether the files are what their archive will be unpacked to: names in it may mean something else."""
    return not any(f"/{WHITEOUT}" in change.path for change in changes)


def seal(files: Path, changes: list[Change], ids: IdMap, tar_split: BinaryIO) -> Unpacked:
    """Describe the layer that `changes` with their files below `files` make: its tar-split, digest and size.

    The archive itself is written nowhere. Sockets are removed, since no archive could hold them.
    """
    sockets: list[str] = []
    writer = TarSplitWriter(tar_split)
    size, before = 0, b""
    with _Digest() as digest:
        for member in diff_members(files, changes, ids, sockets.append):
            header = member.header
            start = before + header.encode()
            writer.segment(start)
            digest.update(start)
            writer.file(header.name, header.size, _checksum(member, digest))
            before = padding(header.size)
            size += len(os.fsencode(header.linkname)) if header.type == SYMLINK else header.size
        # In two pieces: reading an archive, one stops behind the block that ends it.
        for end in (before + bytes(BLOCK), bytes(BLOCK)):
            writer.segment(end)
            digest.update(end)
        writer.close()
        for socket in sockets:
            (files / socket).unlink()
        return Unpacked(f"sha256:{digest.hexdigest()}", size)


def _checksum(member: Member, digest: _Digest) -> bytes:
    if isinstance(member.content, bytes):
        digest.update(member.content)
        return crc64(member.content)
    checksum = Crc64()
    for chunk in member.content:
        digest.update(chunk)
        checksum.update(chunk)
    return checksum.digest()


class _Digest:
    """SHA-256, by a thread of its own if there is much."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "layer-digest")  # It starts with the first chunk.
        self._waiting: deque[Future[None]] = deque()
        self._pieces: list[bytes] = []
        self._length = 0

    def __enter__(self) -> _Digest:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def update(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length >= _CHUNK:
            if len(self._waiting) >= _AHEAD:
                self._waiting.popleft().result()
            self._waiting.append(self._thread.submit(self._sha256.update, self._joined()))

    def hexdigest(self) -> str:
        for each in self._waiting:
            each.result()
        self._waiting.clear()
        self._sha256.update(self._joined())
        return self._sha256.hexdigest()

    def _joined(self) -> bytes:
        joined = b"".join(self._pieces)
        self._pieces.clear()
        self._length = 0
        return joined
