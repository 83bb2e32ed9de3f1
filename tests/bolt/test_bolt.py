"""bbolt databases: what is written reads the same, and bytes that are no database are told apart."""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.bolt import BrokenDatabase, Bucket
from longshore.bolt.database import SharedDatabase
from longshore.bolt.reader import decode, newest_meta
from longshore.bolt.writer import PAGE_SIZE, encode
from longshore.errors import Conflict

keys = st.binary(min_size=1, max_size=60)
values = st.binary(max_size=200) | st.integers(1, 3 * PAGE_SIZE).map(lambda size: b"x" * size)
buckets = st.recursive(
    st.builds(Bucket, st.dictionaries(keys, values, max_size=200), st.integers(0, 99)),
    lambda inner: st.builds(Bucket, st.dictionaries(keys, values | inner, max_size=8), st.integers(0, 99)),
    max_leaves=4,
)


@given(buckets)
def test_what_is_written_reads_the_same(root: Bucket) -> None:
    assert decode(encode(root)) == root


def test_many_pages_many_levels() -> None:
    root = Bucket()
    root.bucket(b"inner").items = {f"{number:08}".encode(): b"v" * (number % 90) for number in range(50000)}
    content = encode(root, 7)
    assert decode(content) == root
    assert newest_meta(content).transaction == 7
    assert list(decode(content).bucket(b"inner").items) == sorted(root.bucket(b"inner").items)


@given(buckets, st.data())
def test_damage_is_noticed_or_harmless(root: Bucket, data: st.DataObject) -> None:
    content = bytearray(encode(root))
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(content)))
    for damaged in (bytes(content), bytes(content[:cut])):
        with contextlib.suppress(BrokenDatabase):
            decode(damaged)


def test_the_older_meta_page_serves_when_the_newer_is_torn() -> None:
    root = Bucket({b"a": b"b"})
    for number in (0, 1):
        content = bytearray(encode(root, 5))
        content[number * PAGE_SIZE + 40] ^= 1
        assert decode(bytes(content)) == root


def test_locked_while_open_whoever_replaces_it(tmp_path: Path) -> None:
    database = SharedDatabase(tmp_path / "shared.db")
    root = database.open()
    for number in range(3):
        root.items[b"key"] = str(number).encode()
        database.save(root)
        with pytest.raises(Conflict):
            SharedDatabase(tmp_path / "shared.db").open()
    database.close()
    with (tmp_path / "shared.db").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(Conflict):
            database.open()
    assert SharedDatabase(tmp_path / "shared.db").open().items == {b"key": b"2"}
    assert [path.name for path in tmp_path.iterdir()] == ["shared.db"]
