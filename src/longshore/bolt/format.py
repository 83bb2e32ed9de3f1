"""What a bbolt file consists of: pages, of which the first two describe the rest.

All numbers are little-endian, as on every machine Docker runs on but s390x.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

MAGIC = 0xED0CDAED
VERSION = 2

BRANCH, LEAF, META, FREELIST = 0x01, 0x02, 0x04, 0x10
"""Kinds of pages."""
IS_BUCKET = 0x01
"""Flag of a leaf's element whose value is a bucket."""

PAGE_HEADER = struct.Struct("<QHHI")
"""Its number, its kind, how many elements it has, how many more pages it covers."""
META_BODY = struct.Struct("<IIIIQQQQQ")
"""Magic, version, page size, flags, root's page and sequence, freelist's page, pages in all, transaction."""
LEAF_ELEMENT = struct.Struct("<IIII")
"""Flags, where the key is from here on, lengths of key and value."""
BRANCH_ELEMENT = struct.Struct("<IIQ")
"""Where the key is from here on, its length, the page below."""
BUCKET_HEADER = struct.Struct("<QQ")
"""Root's page, or 0 if the only page follows at once; the sequence."""
CHECKSUM = struct.Struct("<Q")


class BrokenDatabase(Exception):
    """The file is no bbolt database, or a damaged one."""


@dataclass
class Bucket:
    """Keys and values; a value may be a bucket again. `sequence` is the counter that users of it may have."""

    items: dict[bytes, bytes | Bucket] = field(default_factory=dict)
    sequence: int = 0

    def bucket(self, name: bytes) -> Bucket:
        """The bucket of this name, made if there is none (or a value in its place)."""
        found = self.items.get(name)
        if not isinstance(found, Bucket):
            found = self.items[name] = Bucket()
        return found

    def values(self) -> dict[bytes, bytes]:
        """What is in it and is no bucket."""
        return {key: value for key, value in self.items.items() if isinstance(value, bytes)}


def checksum(body: bytes) -> int:
    """FNV-1a, 64 bits."""
    digest = 0xCBF29CE484222325
    for byte in body:
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return digest
