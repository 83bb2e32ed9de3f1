"""Layers made of files in place are those that their archives would make, to the byte."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import stat
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from hypothesis import given
from hypothesis import strategies as st

from longshore.layers.difftar import diff_members, diff_tar
from longshore.layers.driver import ADDED, DELETED, Change
from longshore.layers.idmap import IdMap
from longshore.layers.sealing import seal
from longshore.layers.store import LayerStore
from longshore.layers.tarheader import Header
from longshore.layers.tarsplit import assemble
from longshore.layers.treediff import tree_changes
from longshore.layers.unpack import unpack

IDS = IdMap()


class Tree:
    """Takes the place of an extractor, since the files are there: what counts is how they are described."""

    size = 0

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        return

    def add(self, entry: object, content: Iterator[bytes] | bytes) -> bool:
        if not isinstance(content, bytes):
            for _ in content:
                pass
        return True


def number(digits: int) -> st.SearchStrategy[int]:
    """What a field of a header holds, and what it does not."""
    return st.integers(0, 8**digits + 3) | st.sampled_from([0, 8**digits - 1, 8**digits])


def names() -> st.SearchStrategy[str]:
    letters = st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("\udcff\udc80/a")
    return st.text(letters, min_size=1, max_size=8) | st.integers(98, 260).map(lambda length: "n" * length)


@given(
    names(),
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
    | st.sampled_from([tarfile.CHRTYPE, tarfile.BLKTYPE]),
    st.integers(0, 0o7777),
    number(7),
    number(7),
    number(11),
    number(11) | st.integers(-5, 5),
    names() | st.just(""),
    st.sampled_from([None, {"SCHILY.xattr.security.capability": "\1\udcff"}]),
)
def test_headers_are_those_of_tarfile(
    name: str,
    type: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    linkname: str,
    pax: dict[str, str] | None,
) -> None:
    if type == tarfile.DIRTYPE:
        name = name.rstrip("/") + "/"
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid, info.size, info.mtime = type, mode, uid, gid, size, mtime
    info.linkname, info.devmajor, info.devminor, info.pax_headers = linkname, 8, 1, pax or {}
    ours = Header(name, type, mode, uid, gid, size, mtime, linkname, 8, 1, pax).encode()
    assert ours == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def many_kinds(root: Path) -> None:
    for name, size in {"empty": 0, "small": 3, "block": 512, "most": 1 << 16, "large": (1 << 20) + 7}.items():
        (root / name).write_bytes(os.urandom(size))
    (root / "large").chmod(0o4755)
    (root / "hard").hardlink_to(root / "small")
    (root / "dir/in" / ("n" * 120)).mkdir(parents=True)
    (root / "dir/in" / ("n" * 120) / ("m" * 200)).write_text("far down")
    (root / "dir/ünï").write_text("not ASCII")
    Path(os.fsdecode(os.fsencode(root) + b"/dir/\xff\xfe")).write_text("no text")
    (root / "dir/li\nk").symlink_to("t" * 150)
    (root / 'dir/"quoted\\').symlink_to("/nowhere")
    os.mkfifo(root / "fifo")
    os.mknod(root / "dir/device", stat.S_IFCHR | 0o660, os.makedev(10, 200))
    os.chown(root / "block", 3_000_000, 4_000_000_000)
    os.utime(root / "empty", (-1_000, -1_000))
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(root / "most", "security.capability", capability)


def test_what_is_sealed_is_what_would_be_unpacked(root: None, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    many_kinds(tree)
    changes = sorted([*tree_changes(tree, None), Change("/dir/gone", DELETED)])
    written, read = io.BytesIO(), io.BytesIO()
    sealed = seal(tree, changes, IDS, written)
    archive = b"".join(diff_tar(tree, changes, IDS))
    unpacked = unpack(cast(BinaryIO, io.BytesIO(archive)), Tree(), read)
    assert sealed.diff_id == unpacked.diff_id == f"sha256:{hashlib.sha256(archive).hexdigest()}"
    assert written.getvalue() == read.getvalue()
    (tmp_path / "split").write_bytes(written.getvalue())
    assert b"".join(assemble(tmp_path / "split", tree)) == archive
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        kept = members.getmembers()
        targets = sum(len(each.linkname) for each in kept if each.issym())
        assert sealed.size == sum(each.size for each in kept) + targets
        assert {each.name for each in kept} == {
            change.path.replace("/dir/gone", "/dir/.wh.gone")[1:] for change in changes
        }


def test_sockets_are_removed(root: None, tmp_path: Path) -> None:
    store = LayerStore(tmp_path, "overlay2")

    def fill(files: Path) -> None:
        (files / "file").write_text("kept")
        with socket.socket(socket.AF_UNIX) as bound:
            here = os.open(files, os.O_PATH)
            bound.bind(f"/proc/self/fd/{here}/socket")
            os.close(here)

    layer = store.build(None, fill)
    assert layer is not None
    assert [each.name for each in store.driver.own_files(layer.cache_id).iterdir()] == ["file"]
    with tarfile.open(fileobj=store.tar_stream(layer), mode="r|") as archive:
        assert archive.getnames() == ["file"]


def test_names_of_whiteouts_mean_here_what_they_mean_elsewhere(root: None, tmp_path: Path) -> None:
    store = LayerStore(tmp_path, "overlay2")
    below = store.build(None, lambda files: (files / "hidden").touch())
    assert below is not None
    layer = store.build(below.chain_id, lambda files: (files / ".wh.hidden").touch())
    assert layer is not None
    other = LayerStore(tmp_path / "elsewhere", "overlay2")
    lower = other.register(store.tar_stream(below), None)
    upper = other.register(store.tar_stream(layer), lower.chain_id)
    for each, chain in ((store, layer.chain_id), (other, upper.chain_id)):
        with each.view(chain) as seen:
            assert list(seen.iterdir()) == []


def test_what_goes_while_it_is_read(tmp_path: Path) -> None:
    for name in ("a", "b", "d/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(1 << 17))
    size = 64 << 20
    os.truncate(tmp_path / "a", size)
    members = diff_members(tmp_path, [Change(f"/{name}", ADDED) for name in ("a", "b", "d", "d/c")], IDS)
    first = next(members)
    assert first.header.size == size
    os.truncate(tmp_path / "a", 1 << 17)
    (tmp_path / "b").unlink()
    (tmp_path / "d").rename(tmp_path / "moved")
    assert not isinstance(first.content, bytes)
    # What the header has promised comes, and not all at once; the others are left out.
    lengths = [len(chunk) for chunk in first.content]
    assert sum(lengths) == size
    assert max(lengths) <= 1 << 20
    assert list(members) == []
