"""Compressed streams: every format read whole, a little at a time, and damage told."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard

from longshore.errors import InvalidParameter
from longshore.layers.compression import CHUNK, decompressed


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data)


def zstd_of_unknown_size(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    return compressor.compress(data) + compressor.flush()


FORMATS = [
    pytest.param(gzip.compress, id="gzip"),
    pytest.param(bz2.compress, id="bzip2"),
    pytest.param(lzma.compress, id="xz"),
    pytest.param(zstd, id="zstd"),
    pytest.param(zstd_of_unknown_size, id="zstd-streamed"),
]
Compress = Callable[[bytes], bytes]


class Dribble(io.BytesIO):
    """Gives a few bytes at a time, as a socket may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(random.randint(1, 700))


def read_all(data: bytes, stream: type[io.BytesIO] = io.BytesIO) -> bytes:
    read = decompressed(stream(data))
    return b"".join(iter(read, b""))


@pytest.mark.parametrize("start", [b"BZh", b"BZh9", b"BZh91AY", b"P*M", b""])
@pytest.mark.parametrize("stream", [io.BytesIO, Dribble])
def test_what_only_begins_as_if_it_were_compressed(start: bytes, stream: type[io.BytesIO]) -> None:
    header = start.ljust(100, b"\0") + b"0000644"
    for data in (header, start[:4]):
        assert read_all(data, stream) == data


@pytest.mark.parametrize("compress", FORMATS)
@pytest.mark.parametrize("stream", [io.BytesIO, Dribble])
def test_members_read_as_one(compress: Compress, stream: type[io.BytesIO]) -> None:
    plain = os.urandom(300_000) + b"shore " * 200_000
    data = compress(plain) + compress(b"") + compress(b"more") + bytes(1024)
    assert read_all(data, stream) == plain + b"more"


@pytest.mark.parametrize("compress", FORMATS)
def test_a_bomb_comes_in_bounded_pieces(compress: Compress) -> None:
    size = 96 << 20
    bomb = compress(bytes(size))
    assert len(bomb) < size // 500
    tracemalloc.start()
    try:
        read, total = decompressed(io.BytesIO(bomb)), 0
        while chunk := read():
            assert len(chunk) <= CHUNK
            total += len(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == size
    assert peak < 24 << 20


@pytest.mark.parametrize("compress", FORMATS)
def test_cut_off_and_damaged_streams_are_refused(compress: Compress) -> None:
    data = compress(os.urandom(200_000))
    for cut in (len(data) - 1, len(data) // 2, 7):
        with pytest.raises(InvalidParameter, match="unexpected EOF"):
            read_all(data[:cut])
    for damage in (data[:8] + bytes(64) + data[72:], data + b"no member"):
        with pytest.raises(InvalidParameter):
            read_all(damage)


def test_frames_to_be_skipped_are_skipped() -> None:
    note = b"\x5a\x2a\x4d\x18" + (5000).to_bytes(4, "little") + os.urandom(5000)
    for stream in (io.BytesIO, Dribble):
        assert read_all(note + zstd(b"content") + note, stream) == b"content"


def test_a_zstd_block_may_not_claim_more_than_the_format_allows() -> None:
    frame = b"\x28\xb5\x2f\xfd\x00\x58" + ((1 << 20) << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"x"
    with pytest.raises(InvalidParameter, match="damaged zstd block"):
        read_all(frame)


def test_a_dictionary_of_gigabytes_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    modest = bytearray(lzma.compress(b"small", filters=filters))
    assert read_all(bytes(modest)) == b"small"
    # Block header: size, flags, filter id, size of properties, dictionary size (40 is 4 GiB - 1), CRC.
    start = 12
    size = (modest[start] + 1) * 4
    modest[start + 4] = 40
    crc = zlib.crc32(modest[start : start + size - 4])
    modest[start + size - 4 : start + size] = crc.to_bytes(4, "little")
    with pytest.raises(InvalidParameter, match=r"(?i)memory"):
        read_all(bytes(modest))
