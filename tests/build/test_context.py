"""Contexts: archives that are unpacked."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from longshore.build.context import unpack_context
from longshore.layers.idmap import IdMap

MEGABYTE = 1 << 20


class Enough(Exception):
    """Nobody wants the rest."""


def test_a_few_bytes_that_stand_for_many_are_not_unpacked_to_their_end(root: None, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb", 1) as compressed, tarfile.open(fileobj=compressed, mode="w|") as tar:
        entry = tarfile.TarInfo("huge")
        entry.size = 64 * MEGABYTE
        tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    buffer.seek(0)
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise Enough

    with pytest.raises(Enough):
        unpack_context(buffer, tmp_path, IdMap(), check)
    assert (tmp_path / "huge").stat().st_size <= 16 * MEGABYTE
