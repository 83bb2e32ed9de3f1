"""Writing a bbolt database: always a whole one, its pages in order, none of them free."""

from __future__ import annotations

from longshore.bolt.format import (
    BRANCH,
    BRANCH_ELEMENT,
    BUCKET_HEADER,
    CHECKSUM,
    FREELIST,
    IS_BUCKET,
    LEAF,
    LEAF_ELEMENT,
    MAGIC,
    META,
    META_BODY,
    PAGE_HEADER,
    VERSION,
    Bucket,
    checksum,
)

PAGE_SIZE = 4096
_FREELIST_PAGE, _FIRST_PAGE = 2, 3


def encode(root: Bucket, transaction: int = 1) -> bytes:
    """The file. `transaction` counts up from file to file, as if bbolt had changed it."""
    pages = _Pages()
    top = pages.add_bucket(root)
    file = bytearray()
    for number in (0, 1):
        # bbolt writes its meta pages in turn, so that one is of the transaction before.
        body = META_BODY.pack(
            *(MAGIC, VERSION, PAGE_SIZE, 0),
            *(top, root.sequence, _FREELIST_PAGE, pages.end),
            max(0, transaction - (transaction + number) % 2),
        )
        page = PAGE_HEADER.pack(number, META, 0, 0) + body + CHECKSUM.pack(checksum(body))
        file += page.ljust(PAGE_SIZE, b"\0")
    file += PAGE_HEADER.pack(_FREELIST_PAGE, FREELIST, 0, 0).ljust(PAGE_SIZE, b"\0")
    return bytes(file + pages.content)


class _Pages:
    def __init__(self) -> None:
        self.content = bytearray()
        self.end = _FIRST_PAGE

    def add_bucket(self, bucket: Bucket) -> int:
        """Write a bucket and those in it. Returns the number of its root page."""
        leaves: list[tuple[bytes, bytes, int]] = []
        for key, value in sorted(bucket.items.items()):
            if isinstance(value, Bucket):
                header = BUCKET_HEADER.pack(self.add_bucket(value), value.sequence)
                leaves.append((key, header, IS_BUCKET))
            else:
                leaves.append((key, value, 0))
        level = [
            (group[0][0] if group else b"", self._add_leaf(group))
            for group in _grouped(leaves, LEAF_ELEMENT.size) or [[]]
        ]
        while len(level) > 1:
            level = [
                (group[0][0], self._add_branch([(key, page) for key, _, page in group]))
                for group in _grouped([(key, b"", page) for key, page in level], BRANCH_ELEMENT.size)
            ]
        return level[0][1]

    def _add_leaf(self, elements: list[tuple[bytes, bytes, int]]) -> int:
        heads, data = bytearray(), bytearray()
        for index, (key, value, flags) in enumerate(elements):
            offset = (len(elements) - index) * LEAF_ELEMENT.size + len(data)
            heads += LEAF_ELEMENT.pack(flags, offset, len(key), len(value))
            data += key + value
        return self._add_page(LEAF, len(elements), bytes(heads + data))

    def _add_branch(self, elements: list[tuple[bytes, int]]) -> int:
        heads, data = bytearray(), bytearray()
        for index, (key, page) in enumerate(elements):
            offset = (len(elements) - index) * BRANCH_ELEMENT.size + len(data)
            heads += BRANCH_ELEMENT.pack(offset, len(key), page)
            data += key
        return self._add_page(BRANCH, len(elements), bytes(heads + data))

    def _add_page(self, kind: int, count: int, body: bytes) -> int:
        number = self.end
        size = PAGE_HEADER.size + len(body)
        pages = -(-size // PAGE_SIZE)
        self.content += (PAGE_HEADER.pack(number, kind, count, pages - 1) + body).ljust(
            pages * PAGE_SIZE, b"\0"
        )
        self.end += pages
        return number


def _grouped(elements: list[tuple[bytes, bytes, int]], head: int) -> list[list[tuple[bytes, bytes, int]]]:
    """Split into what fits a page; never less than two to a page (bbolt's minimum), but for the last."""
    groups: list[list[tuple[bytes, bytes, int]]] = []
    room = 0
    for element in elements:
        size = head + len(element[0]) + len(element[1])
        if not groups or (size > room and len(groups[-1]) >= 2):
            groups.append([])
            room = PAGE_SIZE - PAGE_HEADER.size
        groups[-1].append(element)
        room -= size
    return groups
