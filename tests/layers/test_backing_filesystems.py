"""Layers on the file systems that Docker is used on, and those that overlayfs cannot be used on."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from harness.filesystems import DOCKER_NAMES, filesystem

from longshore.errors import System
from longshore.layers.store import LayerStore
from longshore.linux.files import supports_d_type
from longshore.linux.mount import mounted


def layer(**files: bytes) -> io.BytesIO:
    """An archive of these files, with a whiteout of `gone` and a capability of `able`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if name == "able":
                capability = b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode()
                info.pax_headers = {"SCHILY.xattr.security.capability": capability}
            archive.addfile(info, io.BytesIO(content))
        archive.addfile(tarfile.TarInfo(".wh.gone"))
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_a_life_of_layers(kind: str, tmp_path: Path, root: None) -> None:
    with filesystem(kind, tmp_path) as place:
        store = LayerStore(place)
        assert store.driver_name == "overlay2"
        assert store.status()[:2] == [
            ("Backing Filesystem", DOCKER_NAMES.get(kind, kind)),
            ("Supports d_type", "true"),
        ]
        below = store.register(layer(gone=b"1", kept=b"2", able=b"3"), None)
        above = store.register(layer(new=b"4"), below.chain_id)
        rw = store.create_rw_layer("c", above.chain_id)
        merged = rw.mount()
        assert not (merged / "gone").exists()
        assert os.getxattr(merged / "able", "security.capability")
        (merged / "kept").unlink()
        (merged / "new").write_text("changed")
        (merged / "dir").mkdir()
        assert [tuple(each) for each in rw.changes()] == [("/dir", 1), ("/kept", 2), ("/new", 0)]
        rw.unmount()
        committed = store.commit(rw)
        assert committed is not None
        archive = store.tar_stream(committed).read()
        with tarfile.open(fileobj=io.BytesIO(archive)) as members:
            assert sorted(members.getnames()) == [".wh.kept", "dir", "new"]
        assert LayerStore(place).find(committed.chain_id) is not None
        store.release_rw_layer(rw)
        for each in (committed, above, below):
            store.release(each)
        assert store.driver.ids() == set()


def test_without_kinds_in_directories(tmp_path: Path, root: None) -> None:
    with filesystem("ext4", tmp_path, "-O", "^filetype") as place:
        with pytest.raises(System, match=r"extfs filesystem is formatted without d_type .* -O filetype"):
            LayerStore(place, "overlay2")
        assert not list(place.glob("check-*"))
        assert LayerStore(place).driver_name == "vfs"
    (tmp_path / "d").mkdir()
    assert supports_d_type(tmp_path)


def test_on_top_of_overlayfs(tmp_path: Path, root: None) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = ",".join(f"{name}dir={tmp_path / name}" for name in ("lower", "upper", "work"))
    with mounted("overlay", tmp_path / "merged", "overlay", data=options):
        place = tmp_path / "merged"
        with pytest.raises(System, match="driver not supported: overlay2"):
            LayerStore(place, "overlay2")
        store = LayerStore(place)
        assert store.driver_name == "vfs"
        rw = store.create_rw_layer("c", store.register(layer(f=b"1"), None).chain_id)
        (rw.mount() / "f").write_text("22")
        assert [tuple(each) for each in rw.changes()] == [("/f", 0)]
        # What does not work is told, and nothing else is used instead.
        with pytest.raises(System, match="unknown option overlay2"):
            LayerStore(tmp_path / "merged/new", storage_options=["overlay2.size=1G"])
