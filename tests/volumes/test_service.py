"""Volumes on the real disk and with real mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from longshore.errors import Conflict, InvalidParameter, NotFound
from longshore.linux.mount import is_mount_point
from longshore.volumes.copyup import copy_up
from longshore.volumes.service import VolumeService


def test_life_of_a_volume(tmp_path: Path) -> None:
    service = VolumeService(tmp_path / "volumes")
    service.create("one", labels={"a": "b"}, ref="c1")
    anonymous = service.create()
    service.close()
    again = VolumeService(tmp_path / "volumes")
    assert again.get("one").Labels == {"a": "b"}
    with pytest.raises(Conflict, match=r"remove one: volume is in use - \[c1\]"):
        service.remove("one")
    assert service.prune()[0] == [anonymous.Name]
    service.release("one", "c1")
    service.remove("one")
    with pytest.raises(NotFound, match="get one: no such volume"):
        service.get("one")
    service.remove("one", force=True)


@pytest.mark.parametrize("name", ["../x", "a/b", ".a", "a b", "a\n"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter, match="includes invalid characters for a local volume name"):
        VolumeService(tmp_path / "volumes").create(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_options_are_mounted_while_used(tmp_path: Path) -> None:
    service = VolumeService(tmp_path / "volumes")
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    service.create("tm", options=options)
    path = service.mount("tm", "c1")
    service.mount("tm", "c2")
    service.unmount("tm", "c1")
    assert is_mount_point(path)
    service.unmount("tm", "c2")
    assert not is_mount_point(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_copy_up_keeps_what_files_are(tmp_path: Path) -> None:
    source = tmp_path / "rootfs/data"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_text("x")
    os.chown(source / "file", 7, 8)
    (source / "file").chmod(0o4750)
    (source / "sub/other").hardlink_to(source / "file")
    (source / "link").symlink_to("/etc/passwd")
    volume = tmp_path / "volume"
    volume.mkdir()
    assert copy_up(volume, tmp_path / "rootfs", "/data")
    status = (volume / "file").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (7, 8, 0o4750)
    assert (volume / "sub/other").stat().st_ino == status.st_ino
    assert (volume / "link").readlink() == Path("/etc/passwd")
    assert not copy_up(volume, tmp_path / "rootfs", "/data")


def test_copy_up_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("x")
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs/data").symlink_to(tmp_path / "secret")
    (tmp_path / "volume").mkdir()
    assert not copy_up(tmp_path / "volume", tmp_path / "rootfs", "/data")
