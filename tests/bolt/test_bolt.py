"""bbolt databases: what is written reads the same, and bytes that are no database are told apart."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshore.bolt import BrokenDatabase, Bucket
from longshore.bolt.database import SharedDatabase
from longshore.bolt.format import (
    BRANCH,
    BRANCH_ELEMENT,
    BUCKET_HEADER,
    CHECKSUM,
    IS_BUCKET,
    LEAF,
    LEAF_ELEMENT,
    MAGIC,
    META,
    META_BODY,
    PAGE_HEADER,
    VERSION,
    checksum,
)
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


@settings(deadline=None)
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


@settings(deadline=None)
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


def database(*pages: bytes, root: int = 2) -> bytes:
    """A file of these pages, from page 2 on; each gets its header's number."""
    end = 2 + sum(max(1, len(page) // PAGE_SIZE) for page in pages)
    body = META_BODY.pack(MAGIC, VERSION, PAGE_SIZE, 0, root, 0, 0, end, 1)
    meta = PAGE_HEADER.pack(0, META, 0, 0) + body + CHECKSUM.pack(checksum(body))
    return meta.ljust(PAGE_SIZE, b"\0") * 2 + b"".join(pages)


def page(number: int, kind: int, count: int, body: bytes = b"", overflow: int = 0) -> bytes:
    header = PAGE_HEADER.pack(number, kind, count, overflow)
    return (header + body).ljust((overflow + 1) * PAGE_SIZE, b"\0")


def branch(number: int, *below: int) -> bytes:
    return page(number, BRANCH, len(below), b"".join(BRANCH_ELEMENT.pack(0, 0, one) for one in below))


_HUGE = 1000
_INLINE = PAGE_HEADER.pack(0, LEAF, 1, 0) + LEAF_ELEMENT.pack(IS_BUCKET, 0, 0, 3900)


@pytest.mark.parametrize(
    "content",
    [
        database(branch(2, 2)),
        database(branch(2, 3, 3), page(3, LEAF, 0)),
        database(branch(2, 3), branch(3, 4), branch(4, 2)),
        database(branch(2, 99)),
        database(branch(2, 0)),
        database(page(2, LEAF, 65535)),
        database(page(2, LEAF, 1, LEAF_ELEMENT.pack(0, 0, 0, 2**32 - 1))),
        database(page(2, LEAF, 0, overflow=9)[:PAGE_SIZE]),
        # A thousand values of four megabytes each, all the same four.
        database(
            page(2, LEAF, 1000, LEAF_ELEMENT.pack(0, 0, 0, (_HUGE - 9) * PAGE_SIZE) * 1000, overflow=_HUGE)
        ),
        # Every page says that it reaches to the end.
        database(
            branch(2, *range(3, 203)),
            *(page(number, LEAF, 0, overflow=_HUGE - number)[:PAGE_SIZE] for number in range(3, _HUGE + 1)),
        ),
        # Buckets that hold themselves.
        database(page(2, LEAF, 1, LEAF_ELEMENT.pack(IS_BUCKET, 16, 0, 4000) + BUCKET_HEADER.pack(2, 0))),
        database(page(2, LEAF, 9, (LEAF_ELEMENT.pack(IS_BUCKET, 0, 0, 3900)) * 9)),
        database(page(2, LEAF, 1, LEAF_ELEMENT.pack(IS_BUCKET, 16, 0, 4064) + bytes(16) + _INLINE)),
        database(page(2, 0x40, 1)),
        b"",
        bytes(100_000),
    ],
)
def test_bombs_and_circles_are_told(content: bytes) -> None:
    with pytest.raises(BrokenDatabase):
        decode(content)


def test_numbers_in_the_wrong_places() -> None:
    """Counts, lengths and page numbers are what a reader follows: none may lead it astray."""
    root = Bucket({b"plain": b"v" * 5000, b"empty": Bucket()}, 3)
    root.bucket(b"inner").items = {f"{number:04}".encode(): b"v" * 40 for number in range(300)}
    good, chance = encode(root), random.Random(1)
    interesting = (0, 1, 2, 3, 15, 16, 17, 255, 4095, 4096, 65535, 2**31, 2**32 - 1)
    for _ in range(1500):
        content = bytearray(good)
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = 2 * PAGE_SIZE + PAGE_SIZE * chance.randrange(len(good) // PAGE_SIZE - 2)
            at += 4 * chance.randrange(40)
            content[at : at + 4] = chance.choice(interesting).to_bytes(4, "little")
        with contextlib.suppress(BrokenDatabase):
            decode(bytes(content))


def test_who_waited_gets_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    first = SharedDatabase(path)
    root = first.open()
    with path.open("rb") as stale:  # opened before it is replaced, locked after
        root.items[b"key"] = b"new"
        first.save(root)
        first.close()
        fcntl.flock(stale, fcntl.LOCK_EX | fcntl.LOCK_NB)
        second = SharedDatabase(path)
        assert second.open().items == {b"key": b"new"}
        with pytest.raises(Conflict):
            SharedDatabase(path).open()
        second.close()


def test_what_another_daemon_is_writing_is_left_alone(tmp_path: Path) -> None:
    path, writing = tmp_path / "shared.db", tmp_path / ".tmp-shared.db-1234"
    first = SharedDatabase(path)
    first.open()
    writing.touch()
    with pytest.raises(Conflict):
        SharedDatabase(path).open()
    assert writing.exists()
    first.close()
    SharedDatabase(path).open()
    assert not writing.exists()


def test_readers_and_writers_at_once(tmp_path: Path) -> None:
    """Whoever gets in sees all that the one before has written."""
    path, done = tmp_path / "shared.db", []

    def count() -> None:
        for _ in range(10):
            while True:
                try:
                    mine = SharedDatabase(path)
                    root = mine.open()
                except Conflict:
                    time.sleep(0.001)
                    continue
                root.items[b"n"] = str(int(root.values().get(b"n", b"0")) + 1).encode()
                mine.save(root)
                mine.close()
                break
        done.append(True)

    first = SharedDatabase(path)
    first.open()
    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    first.close()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    assert SharedDatabase(path).open().items == {b"n": b"40"}


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BrokenDatabase, match="not a regular file"):
        SharedDatabase(tmp_path / "fifo").open()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        SharedDatabase(tmp_path / "link").open()
    assert not (tmp_path / "elsewhere").exists()
