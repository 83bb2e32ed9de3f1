"""Contexts: archives that are unpacked."""

from __future__ import annotations

import gzip
import io
import tarfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshore.build.context import unpack_context
from longshore.build.sources import content_digest, find_sources
from longshore.errors import EngineError
from longshore.layers import tarstream
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


ENTRY = st.tuples(
    st.sampled_from(["a", "b", "d", "d/a", "d/b", "./d/c", "/d/a"]),
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
    st.sampled_from(["a", "d", "d/a", "content", "x" * 70_000]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ENTRY, max_size=8))
def test_digests_are_those_of_the_files(root: None, entries: list[tuple[str, bytes, str]]) -> None:
    """Whatever took whose place while the archive was unpacked."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, text in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, text[:8]
            content = text.encode() if kind == tarfile.REGTYPE else b""
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    buffer.seek(0)
    with TemporaryDirectory() as directory:
        context = Path(directory)
        with suppress(EngineError, OSError):
            digests = unpack_context(buffer, context, IdMap())
            (there,) = find_sources(context, ["."], [], known=digests)
            assert there == find_sources(context, ["."], [])[0]
            for path, digest in digests.items():
                if (context / path).is_file() and not (context / path).is_symlink():
                    assert digest == content_digest((context / path).read_bytes())


def test_headers_are_not_collected(root: None, tmp_path: Path) -> None:
    """Those of many entries would fill the memory, and count for the map of a sparse file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for _ in range(tarstream._MOST_MAP_BLOCKS + 1):
            entry = tarfile.TarInfo("d")
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        content = b"1\n4096\n4\n".ljust(512, b"\0") + b"data"
        sparse = tarfile.TarInfo("GNUSparseFile.0/s")
        sparse.size = len(content)
        sparse.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "s",
            "GNU.sparse.realsize": "4100",
        }
        tar.addfile(sparse, io.BytesIO(content))
    buffer.seek(0)
    unpack_context(buffer, tmp_path, IdMap())
    assert (tmp_path / "s").read_bytes() == bytes(4096) + b"data"
