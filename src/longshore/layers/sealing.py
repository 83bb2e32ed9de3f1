"""Making layers of files that are in place already, instead of unpacking an archive of them."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from longshore.layers.difftar import ChunkReader, diff_tar
from longshore.layers.driver import DELETED, Change
from longshore.layers.idmap import IdMap
from longshore.layers.tarstream import REGULAR, SYMLINK, TarEntry
from longshore.layers.unpack import Unpacked, unpack

_CHUNK = 1 << 20
"""What the threads that read and describe the files hand over at once; small files are many."""


def seal(files: Path, changes: list[Change], ids: IdMap, tar_split: BinaryIO) -> Unpacked:
    """Describe the layer that `changes` with their files below `files` make: its tar-split, digest and size.

    Sockets are removed, since no archive could hold them.
    """
    kept = [change for change in changes if change.kind == DELETED or not _removed_socket(files, change)]
    archive = io.BufferedReader(ChunkReader(diff_tar(files, kept, ids)), _CHUNK)
    return unpack(cast(BinaryIO, archive), Tally(), tar_split)


class Tally:
    """Stands in for an extractor where every file is in place: only counts."""

    def __init__(self) -> None:
        self.size = 0

    def __enter__(self) -> Tally:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        return

    def add(self, entry: TarEntry, content: Iterator[bytes] | bytes) -> bool:
        """Take the content, as whoever gives it expects."""
        if not isinstance(content, bytes):
            for _ in content:
                pass
        if entry.type == REGULAR:
            self.size += entry.real_size
        elif entry.type == SYMLINK:
            self.size += len(os.fsencode(entry.linkname))
        return True


def _removed_socket(files: Path, change: Change) -> bool:
    path = f"{files}/{change.path}"  # Layers have many files, and a Path takes as long as the look itself.
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    os.unlink(path)  # noqa: PTH108
    return True
