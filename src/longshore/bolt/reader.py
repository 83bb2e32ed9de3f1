"""Reading a bbolt database. Whatever the bytes are, the answer is a tree or BrokenDatabase."""

from __future__ import annotations

import struct

from longshore.bolt.format import (
    BRANCH,
    BRANCH_ELEMENT,
    BUCKET_HEADER,
    CHECKSUM,
    IS_BUCKET,
    LEAF,
    LEAF_ELEMENT,
    MAGIC,
    META_BODY,
    PAGE_HEADER,
    VERSION,
    BrokenDatabase,
    Bucket,
    checksum,
)

_PAGE_SIZES = [512 << shift for shift in range(8)]
_DEEPEST = 64
"""Levels of pages and buckets; real trees have a handful."""


def decode(content: bytes) -> Bucket:
    """The root bucket, as the newest transaction that was finished left it. Raises BrokenDatabase."""
    meta = newest_meta(content)
    try:
        return _Pages(content, meta.page_size, meta.pages).bucket(meta.root, meta.sequence, 0)
    except (struct.error, IndexError) as exc:
        raise BrokenDatabase(f"a page ends too early: {exc}") from exc


class Meta:
    """One of the two meta pages."""

    def __init__(self, content: bytes, at: int) -> None:
        middle = at + PAGE_HEADER.size + META_BODY.size
        body, sum = content[middle - META_BODY.size : middle], content[middle : middle + CHECKSUM.size]
        if len(sum) < CHECKSUM.size:
            raise BrokenDatabase("the file is too short")
        magic, version, self.page_size, _, self.root, self.sequence, _, self.pages, self.transaction = (
            META_BODY.unpack(body)
        )
        if magic != MAGIC or version != VERSION:
            raise BrokenDatabase("not a bbolt database")
        if sum != CHECKSUM.pack(checksum(body)):
            raise BrokenDatabase("a meta page has the wrong checksum")
        if self.page_size not in _PAGE_SIZES:
            raise BrokenDatabase(f"impossible page size {self.page_size}")


def newest_meta(content: bytes) -> Meta:
    """The meta page that counts: of those that are whole, that of the later transaction."""
    found: list[Meta] = []
    problem: BrokenDatabase | None = None
    # Where the second is follows from the first, if that is whole.
    for at in (0, *_PAGE_SIZES):
        try:
            meta = Meta(content, at)
        except BrokenDatabase as exc:
            problem = problem or exc
            continue
        if at in (0, meta.page_size):
            found.append(meta)
    if not found:
        raise problem or BrokenDatabase("not a bbolt database")
    return max(found, key=lambda meta: meta.transaction)


class _Pages:
    def __init__(self, content: bytes, page_size: int, pages: int) -> None:
        self._content = content
        self._page_size = page_size
        self._end = min(pages, len(content) // page_size)
        self._seen: set[int] = set()

    def bucket(self, root: int, sequence: int, depth: int) -> Bucket:
        bucket = Bucket(sequence=sequence)
        self._page(root, bucket, depth)
        return bucket

    def _page(self, number: int, into: Bucket, depth: int) -> None:
        if number in self._seen or depth > _DEEPEST:
            raise BrokenDatabase(f"page {number} is used twice")
        if not 2 <= number < self._end:
            raise BrokenDatabase(f"there is no page {number}")
        start = number * self._page_size
        id, _, _, overflow = PAGE_HEADER.unpack_from(self._content, start)
        if id != number or number + overflow >= self._end:
            raise BrokenDatabase(f"page {number} is damaged")
        covered = range(number, number + overflow + 1)
        if not self._seen.isdisjoint(covered):
            raise BrokenDatabase(f"page {number} covers others")
        self._seen.update(covered)
        self._elements(self._content[start : start + (overflow + 1) * self._page_size], into, depth)

    def _elements(self, page: bytes, into: Bucket, depth: int) -> None:
        _, kind, count, _ = PAGE_HEADER.unpack_from(page, 0)
        room = len(page)
        if kind == BRANCH:
            for index in range(count):
                at = PAGE_HEADER.size + index * BRANCH_ELEMENT.size
                _, _, below = BRANCH_ELEMENT.unpack_from(page, at)
                self._page(below, into, depth + 1)
        elif kind == LEAF:
            for index in range(count):
                at = PAGE_HEADER.size + index * LEAF_ELEMENT.size
                flags, offset, key_size, value_size = LEAF_ELEMENT.unpack_from(page, at)
                middle = at + offset + key_size
                key, value = page[at + offset : middle], page[middle : middle + value_size]
                if len(key) + len(value) != key_size + value_size:
                    raise BrokenDatabase("an element reaches beyond its page")
                room -= key_size + value_size
                if room < 0:
                    # A small file could be told to hold any number of large values, in each other even.
                    raise BrokenDatabase("elements lie on top of each other")
                into.items[key] = self._nested(value, depth + 1) if flags & IS_BUCKET else value
        else:
            raise BrokenDatabase(f"a page of an unexpected kind: {kind:#x}")

    def _nested(self, value: bytes, depth: int) -> Bucket:
        if depth > _DEEPEST:
            raise BrokenDatabase("buckets are nested too deeply")
        root, sequence = BUCKET_HEADER.unpack_from(value, 0)
        if root:
            return self.bucket(root, sequence, depth)
        bucket = Bucket(sequence=sequence)
        self._elements(value[BUCKET_HEADER.size :], bucket, depth)
        return bucket
