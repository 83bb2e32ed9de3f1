"""The mount calls against the kernel."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from longshore.linux import xattr
from longshore.linux.mount import (
    MountFlags,
    UnmountFlags,
    attach,
    detached,
    filesystem_name,
    is_mount_point,
    mount,
    mounted,
    mountinfo,
    umount,
)
from longshore.linux.openat import Resolve, openat2


def test_mount_is_listed_with_its_odd_name(tmp_path: Path) -> None:
    target = tmp_path / "odd name\twith\\all"
    target.mkdir()
    with mounted("mine", target, "tmpfs", MountFlags.NOSUID | MountFlags.NODEV, "size=64k"):
        (point,) = [point for point in mountinfo() if point.target == str(target)]
        assert (point.fstype, point.source) == ("tmpfs", "mine")
        assert {"nosuid", "nodev"} <= set(point.options.split(","))
        assert filesystem_name(target) == "tmpfs"
        assert is_mount_point(target)
    assert not is_mount_point(target)


def test_errors_are_the_kernels(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        mount("none", tmp_path / "missing", "tmpfs")
    with pytest.raises(OSError) as caught:
        umount(tmp_path)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError) as caught:
        mount("none", tmp_path, "tmpfs", data="x" * 5000)
    assert caught.value.errno == errno.ENAMETOOLONG


def test_detached_is_reached_by_descriptor_until_attached(tmp_path: Path) -> None:
    before = len(mountinfo())
    with detached("tmpfs", [("size", "64k")]) as root:
        os.mkdir("inside", dir_fd=root)
        assert len(mountinfo()) == before
        attach(root, tmp_path)
    assert [each.name for each in (tmp_path).iterdir()] == ["inside"]
    umount(tmp_path, UnmountFlags.DETACH)


def test_openat2_stays_in_its_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "root/out").symlink_to("../secret")
    (tmp_path / "root/absolute").symlink_to(tmp_path / "secret")
    top = os.open(tmp_path / "root", os.O_PATH)
    try:
        for path in ("out", "absolute", "../secret", str(tmp_path / "secret")):
            with pytest.raises(FileNotFoundError):
                openat2(top, path, os.O_RDONLY)
        with pytest.raises(OSError):
            openat2(top, "out", os.O_RDONLY, resolve=Resolve.NO_SYMLINKS)
    finally:
        os.close(top)


def test_xattrs_of_descriptors(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w") as file:
        assert xattr.get(file.fileno(), "user.a") is None
        xattr.set_(file.fileno(), "user.a", b"\0\xff")
        assert xattr.get(file.fileno(), "user.a") == b"\0\xff"
        assert xattr.list_(file.fileno()) == ["user.a"]
        xattr.remove(file.fileno(), "user.a")
        xattr.remove(file.fileno(), "user.a")
        assert xattr.list_(tmp_path / "f") == []
