"""The layer store on a real overlayfs: layers in, containers' layers mounted, the same archives out."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from longshore.errors import Conflict, InvalidParameter, NotFound, System
from longshore.layers.idmap import IdRange
from longshore.layers.layerdb import LayerRecord
from longshore.layers.overlaydiff import overlay_changes
from longshore.layers.remove import remove_tree
from longshore.layers.store import LayerStore
from longshore.layers.tarsplit import assemble
from longshore.layers.treediff import tree_changes
from longshore.layers.vfs import copy_tree
from longshore.linux.mount import mountinfo


@pytest.fixture(params=["overlay2", "vfs"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LayerStore]:
    store = LayerStore(tmp_path, request.param)
    yield store
    store.cleanup_stale(set())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LayerStore]:
    store = LayerStore(tmp_path, "overlay2")
    yield store
    store.cleanup_stale(set())
    assert not [point for point in mountinfo() if point.target.startswith(str(tmp_path))]


def tar(files: dict[str, bytes | None], format: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of files; None is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mtime = 1_600_000_000
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archive_comes_out_bit_for_bit(any_store: LayerStore, format: int) -> None:
    long = "/".join(["directory"] * 10 + ["n" * 90])
    archive = tar({"a": None, "a/b": b"x" * 100_000, "empty": b"", long: b"long", "<&>'\"": b"1"}, format)
    archive += b"\0" * 5000  # more padding than needed, which other tools write
    layer = any_store.register(io.BytesIO(archive), None)
    assert any_store.tar_stream(layer).read() == archive
    assert any_store.tar_size(layer) == len(archive)


def test_names_that_are_no_text_survive(store: LayerStore) -> None:
    info = tarfile.TarInfo("odd")
    info.size = 1
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[0:3] = b"\xff\xfe\x80"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    archive = bytes(header) + b"1" + bytes(511) + bytes(1024)
    layer = store.register(io.BytesIO(archive), None)
    assert os.listdir(os.fsencode(store.driver.own_files(layer.cache_id))) == [b"\xff\xfe\x80"]  # noqa: PTH208
    assert store.tar_stream(layer).read() == archive


def test_damage_to_a_file_is_noticed(store: LayerStore) -> None:
    layer = store.register(io.BytesIO(tar({"f": b"right"})), None)
    (store.driver.own_files(layer.cache_id) / "f").write_bytes(b"wrong")
    with pytest.raises(Exception, match='file integrity checksum failed for "f"'):
        store.tar_stream(layer).read()


def test_compressed_archives_are_told_by_content(store: LayerStore) -> None:
    plain = tar({"f": b"1"})
    layer = store.register(io.BytesIO(gzip.compress(plain)), None)
    again = store.register(io.BytesIO(plain), None, layer.diff_id)
    assert again is layer
    assert layer.references == 2


def test_deep_chain_mounts_every_layer(store: LayerStore) -> None:
    parent = None
    for number in range(120):
        layer = store.register(io.BytesIO(tar({f"f{number}": b"1"})), parent)
        parent = layer.chain_id
    rw = store.create_rw_layer("deep", parent)
    root = rw.mount()
    assert sum(each.name.startswith("f") for each in root.iterdir()) == 120
    rw.unmount()


def test_relative_mount_does_the_same(store: LayerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    from longshore.layers import overlaymount

    parent = None
    for number in range(100):
        parent = store.register(io.BytesIO(tar({f"f{number}": b"1"})), parent).chain_id
    # What a kernel without the new mount calls answers.
    monkeypatch.setattr(overlaymount, "detached_overlay", lambda _: nullcontext(None))
    rw = store.create_rw_layer("old", parent)
    directory = Path.cwd()
    assert sum(each.name.startswith("f") for each in rw.mount().iterdir()) == 100
    assert Path.cwd() == directory
    rw.unmount()


def test_mount_is_counted_and_adopted(store: LayerStore, tmp_path: Path) -> None:
    rw = store.create_rw_layer("c", None)
    path = rw.mount()
    assert rw.mount() == path
    rw.unmount()
    assert store.mounted() == ["c"]
    after_crash = LayerStore(tmp_path)
    (path / "written").write_text("x")
    adopted = after_crash.get_rw_layer("c")
    assert adopted.mount() == path
    assert len([point for point in mountinfo() if point.target == str(path)]) == 1
    adopted.unmount()
    assert after_crash.mounted() == []


def test_stale_mounts_are_cleaned(store: LayerStore, tmp_path: Path) -> None:
    store.create_rw_layer("keep", None).mount()
    store.create_rw_layer("stale", None).mount()
    after_crash = LayerStore(tmp_path)
    assert after_crash.cleanup_stale({"keep"}) == ["stale"]
    assert after_crash.mounted() == ["keep"]


def test_changes_and_their_archive(any_store: LayerStore) -> None:
    base = tar({"d": None, "d/old": b"1", "gone": b"2", "kept": b"3", "r": None, "r/x": b"4", "r/y": b"5"})
    layer = any_store.register(io.BytesIO(base), None)
    rw = any_store.create_rw_layer("c", layer.chain_id)
    root = rw.mount()
    (root / "d/new").write_text("n")
    (root / "gone").unlink()
    for name in ("x", "y"):
        (root / "r" / name).unlink()
    (root / "r").rmdir()
    (root / "r").mkdir()
    (root / "r/y").write_text("other")
    rw.unmount()
    assert [tuple(change) for change in rw.changes()] == [
        ("/d", 0),
        ("/d/new", 1),
        ("/gone", 2),
        ("/r", 0),
        ("/r/x", 2),
        ("/r/y", 0),
    ]
    committed = any_store.register(rw.tar_stream(), layer.chain_id)
    second = any_store.create_rw_layer("c2", committed.chain_id)
    root = second.mount()
    assert sorted(each.name for each in (root / "r").iterdir()) == ["y"]
    assert sorted(each.name for each in (root / "d").iterdir()) == ["new", "old"]
    assert not (root / "gone").exists()
    second.unmount()


def test_trees_deeper_than_calls_may_nest(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    directory = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 10):
        os.mkdir("d", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=directory))
    os.close(directory)
    copy_tree(tmp_path / "tree", tmp_path / "copy")
    assert tree_changes(tmp_path / "copy", tmp_path / "tree") == []
    for changes in (overlay_changes(tmp_path / "copy", None), tree_changes(tmp_path / "copy", None)):
        assert len(changes) == sys.getrecursionlimit() + 11
        assert changes[-1].path.endswith("/d/d/file")
    for name in ("tree", "copy"):
        remove_tree(tmp_path / name)


def test_untouched_container_has_no_changes(any_store: LayerStore) -> None:
    layer = any_store.register(io.BytesIO(tar({"etc": None, "etc/hosts": b"image's own"})), None)
    rw = any_store.create_rw_layer("c", layer.chain_id)
    root = rw.mount()
    assert (root / "etc/hosts").read_bytes() == b""
    assert (root / "etc/mtab").readlink() == Path("/proc/mounts")
    assert stat.S_IMODE((root / ".dockerenv").stat().st_mode) == 0o755
    assert rw.changes() == []
    assert rw.size() == 0
    rw.unmount()


def test_last_release_deletes_the_chain(any_store: LayerStore, tmp_path: Path) -> None:
    lower = any_store.register(io.BytesIO(tar({"a": b"1"})), None)
    upper = any_store.register(io.BytesIO(tar({"b": b"1"})), lower.chain_id)
    rw = any_store.create_rw_layer("c", upper.chain_id)
    assert any_store.release(lower) == []
    assert any_store.release(upper) == []
    assert any_store.release_rw_layer(rw) == [upper, lower]
    assert any_store.release_rw_layer(rw) == []
    assert any_store.driver.ids() == set()
    with pytest.raises(NotFound):
        any_store.get(lower.chain_id)


def test_failed_registration_leaves_nothing(any_store: LayerStore, tmp_path: Path) -> None:
    archive = tar({"f": b"x" * 5000})
    for broken in (archive[:3000], b"no archive" * 100, gzip.compress(archive)[:-20]):
        with pytest.raises(InvalidParameter):
            any_store.register(io.BytesIO(broken), None)
    with pytest.raises(InvalidParameter, match="invalid diffID for layer"):
        any_store.register(io.BytesIO(archive), None, "sha256:" + "0" * 64)
    with pytest.raises(NotFound):
        any_store.register(io.BytesIO(archive), "sha256:" + "0" * 64)
    assert any_store.driver.ids() == set()
    assert any_store.layers() == []
    layerdb = tmp_path / "image" / any_store.driver_name / "layerdb"
    assert list((layerdb / "tmp").iterdir()) == list((layerdb / "sha256").iterdir()) == []


def test_name_is_taken_once(store: LayerStore) -> None:
    store.create_rw_layer("c", None)
    with pytest.raises(Conflict):
        store.create_rw_layer("c", None)
    assert len(store.driver.ids()) == 2


def test_storage_options_need_a_quota(store: LayerStore) -> None:
    with pytest.raises(InvalidParameter, match="--storage-opt is supported only for overlay over xfs"):
        store.create_rw_layer("c", None, storage_opt={"size": "1G"})
    assert store.driver.ids() == set()


def test_orphans_are_removed_and_strangers_kept(store: LayerStore, tmp_path: Path) -> None:
    layer = store.register(io.BytesIO(tar({"a": b"1"})), None)
    half = "0" * 64
    store.driver.create(half, layer.cache_id)
    (tmp_path / "overlay2" / f"{'1' * 64}-removing" / "diff").mkdir(parents=True)
    store.driver.create("k3j4h5k3j4h5k3j4h5k3j4h5k", None)
    (tmp_path / "image/overlay2/layerdb/tmp/write-set-1").mkdir()
    again = LayerStore(tmp_path)
    assert again.cleanup_orphans() == 2
    assert again.driver.ids() == {layer.cache_id, "k3j4h5k3j4h5k3j4h5k3j4h5k"}
    assert not (tmp_path / "image/overlay2/layerdb/tmp/write-set-1").exists()


def test_same_layer_by_many_threads(store: LayerStore) -> None:
    archive = tar({f"f{number}": b"1" * 1000 for number in range(200)})
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(store.register(io.BytesIO(archive), None)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert found[0].references == 4
    assert len(store.driver.ids()) == 1


def test_remapped_owners(tmp_path: Path) -> None:
    ids = [IdRange(0, 100_000, 65_536)]
    store = LayerStore(tmp_path, "overlay2", ids, ids)
    info = tarfile.TarInfo("f")
    info.uid, info.gid = 7, 8
    layer = store.register(io.BytesIO(info.tobuf() + bytes(1024)), None)
    there = (store.driver.own_files(layer.cache_id) / "f").stat()
    assert (there.st_uid, there.st_gid) == (100_007, 100_008)
    rw = store.create_rw_layer("c", layer.chain_id)
    root = rw.mount()
    assert root.stat().st_uid == 100_000
    assert (root.parent / "work/work").stat().st_uid == 100_000
    # Of the root in the namespace, which an image has none of.
    namespaced = b"\1\0\0\3" + b"\0\4" + bytes(14) + (100_000).to_bytes(4, "little")
    os.setxattr(root / "f", "security.capability", namespaced)
    rw.unmount()
    with tarfile.open(fileobj=io.BytesIO(rw.tar_stream().read())) as archive:
        kept = archive.getmember("f").pax_headers["SCHILY.xattr.security.capability"]
    assert kept.encode() == b"\1\0\0\2" + b"\0\4" + bytes(14)


def test_tar_split_is_read_as_dockerd_writes_it(store: LayerStore, tmp_path: Path) -> None:
    archive = tar({"f": b"content"})
    layer = store.register(io.BytesIO(archive), None)
    record = LayerRecord(layer.chain_id, layer.diff_id, None, layer.cache_id, layer.size)
    path = tmp_path / "image/overlay2/layerdb/sha256" / record.chain_id[7:] / "tar-split.json.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    # Go's CRC-64 (ISO) of "content", as hash/crc64 computes it.
    assert '"name":"f","size":7,"payload":' in lines[1]
    assert b"".join(assemble(path, store.driver.own_files(layer.cache_id))) == archive


def test_the_driver_is_chosen_as_docker_chooses(root: None, tmp_path: Path) -> None:
    assert LayerStore(tmp_path / "new").driver_name == "overlay2"
    LayerStore(tmp_path / "vfs", "vfs").create_rw_layer("c", None)
    assert LayerStore(tmp_path / "vfs").driver_name == "overlay2"
    assert LayerStore(tmp_path / "vfs", "vfs").get_rw_layer("c").name == "c"
    (tmp_path / "old/btrfs/subvolumes").mkdir(parents=True)
    with pytest.raises(System, match="prior storage driver btrfs"):
        LayerStore(tmp_path / "old")
    (tmp_path / "old/overlay2/l").mkdir(parents=True)
    with pytest.raises(
        System, match="several valid graphdrivers: overlay2, btrfs; cleanup or explicitly choose"
    ):
        LayerStore(tmp_path / "old")
    assert LayerStore(tmp_path / "old", "overlay2").driver_name == "overlay2"
    for option, problem in {
        "overlay2.size=1G": "backingFS XFS. Found",
        "dm.fs=xfs": "unknown option dm.fs",
    }.items():
        with pytest.raises(System, match=problem):
            LayerStore(tmp_path / "new", storage_options=[option])
