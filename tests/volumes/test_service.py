"""Volumes on the real disk and with real mounts."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from longshore.bolt import Bucket
from longshore.bolt.database import SharedDatabase
from longshore.errors import Conflict, InvalidParameter, NotFound, System
from longshore.linux.mount import MountFlags, is_mount_point, mount, umount
from longshore.volumes.copyup import copy_up
from longshore.volumes.local import mount_arguments, parse_options
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


def test_a_tree_too_deep_to_copy_is_an_error_and_no_crash(tmp_path: Path) -> None:
    place = os.open(tmp_path, os.O_RDONLY)
    for name in ("rootfs", "data", *("d" * 600)):
        os.mkdir(name, dir_fd=place)
        below = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    (tmp_path / "volume").mkdir()
    with pytest.raises(OSError, match="File name too long"):
        copy_up(tmp_path / "volume", tmp_path / "rootfs", "/data")


def deepen(place: Path, levels: int) -> None:
    """Make directories in one another, further down than a path can name."""
    at = os.open(place, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("directory", dir_fd=at)
        below = os.open("directory", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def test_what_a_container_nested_goes_with_the_volume(tmp_path: Path) -> None:
    service = VolumeService(tmp_path / "volumes")
    service.create("deep")
    deepen(service.path("deep"), 1200)
    service.remove("deep")
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["metadata.db"]
    service.close()


def test_links_in_a_volume_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x" * 1000)
    service = VolumeService(tmp_path / "volumes")
    service.create("vol")
    (service.path("vol") / "file").write_text("y")
    (service.path("vol") / "link").symlink_to(outside)
    (service.path("vol") / "up").symlink_to("../../..")
    assert service.usage("vol").Size < 1000
    service.remove("vol")
    assert (outside / "precious").exists()
    # A volume that is a link is none: what it leads to is not ours to remove.
    (tmp_path / "volumes/away").symlink_to(outside)
    (outside / "_data").mkdir()
    assert VolumeService(tmp_path / "other").list() == []
    service.close()
    again = VolumeService(tmp_path / "volumes")
    assert again.list() == []
    again.close()


def test_the_size_of_what_is_in_a_volume(tmp_path: Path) -> None:
    service = VolumeService(tmp_path / "volumes")
    service.create("vol", ref="c1")
    data = service.path("vol")
    (data / "sub").mkdir()
    (data / "sub" / "file").write_bytes(bytes(1000))
    (data / "again").hardlink_to(data / "sub/file")
    (data / "link").symlink_to("0123456789")
    (data / os.fsdecode(b"\xff")).write_bytes(bytes(5))
    deepen(data, 600)
    usage = service.usage("vol")
    assert (usage.Size, usage.RefCount) == (1015, 1)
    service.create("elsewhere", options={"type": "tmpfs", "device": "tmpfs"})
    assert service.usage("elsewhere").Size == -1
    service.close()


def test_what_was_begun_when_a_daemon_was_killed_goes(tmp_path: Path) -> None:
    root = tmp_path / "volumes"
    service = VolumeService(root)
    service.create("kept")
    (service.path("kept") / "file").touch()
    service.close()
    shutil.copytree(root / "kept", root / ".tmp-0123")
    (root / ".tmp-0123/longshore.json").unlink()
    again = VolumeService(root)
    assert [each.Name for each in again.list()] == ["kept"]
    assert sorted(path.name for path in root.iterdir()) == ["kept", "metadata.db"]
    again.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_cannot_be_removed_stays_a_volume(tmp_path: Path) -> None:
    service = VolumeService(tmp_path / "volumes")
    service.create("vol", labels={"a": "b"})
    held = service.path("vol") / "file"
    held.touch()
    if subprocess.run(["chattr", "+i", held], capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(System, match=r"remove vol: .*Operation not permitted"):
            service.remove("vol")
        assert held.exists()
        service.close()
        again = VolumeService(tmp_path / "volumes")
        assert again.get("vol").Labels == {"a": "b"}
    finally:
        for path in (tmp_path / "volumes").rglob("file"):
            subprocess.run(["chattr", "-i", path], check=True)
    assert again.prune({"all": ["true"]}) == (["vol"], 0)
    again.close()
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == ["metadata.db"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nothing_that_is_mounted_is_removed(tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "precious").touch()
    service = VolumeService(tmp_path / "volumes")
    service.create("plain")
    service.create("bound", options={"type": "none", "o": "bind", "device": str(host)})
    mount(str(host), service.path("plain"), flags=MountFlags.BIND)
    with pytest.raises(Conflict, match="remove plain: volume has active mounts"):
        service.remove("plain")
    umount(service.path("plain"))
    (service.path("plain") / "inside").mkdir()
    mount(str(host), service.path("plain") / "inside", flags=MountFlags.BIND)
    with pytest.raises(Conflict, match="remove plain: volume has active mounts"):
        service.remove("plain")
    umount(service.path("plain") / "inside")
    service.remove("plain")
    service.mount("bound", "c1")
    with pytest.raises(Conflict, match="remove bound: volume has active mounts"):
        service.remove("bound")
    service.close()
    # A daemon that comes back finds it mounted, and nobody who uses it.
    again = VolumeService(tmp_path / "volumes")
    again.remove("bound")
    again.close()
    assert not is_mount_point(tmp_path / "volumes/bound/_data")
    assert (host / "precious").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_many_who_mount_at_once_mount_once(tmp_path: Path) -> None:
    service = VolumeService(tmp_path / "volumes")
    service.create("tm", options={"type": "tmpfs", "device": "tmpfs"})
    threads = [threading.Thread(target=service.mount, args=("tm", f"c{number}")) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    path = service.path("tm")
    for number in range(8):
        assert is_mount_point(path)
        service.unmount("tm", f"c{number}")
    assert not is_mount_point(path)
    service.remove("tm")
    service.close()


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (
            {"type": "nfs", "o": "addr=localhost,nfsvers=4,soft,rw,nolock", "device": ":/export"},
            (":/export", "nfs", 0, "addr=127.0.0.1,nfsvers=4,soft,nolock"),
        ),
        (
            {"type": "nfs", "o": "ro,addr=192.0.2.7", "device": ":/export"},
            (":/export", "nfs", MountFlags.RDONLY, "addr=192.0.2.7"),
        ),
        (
            {"type": "nfs4", "o": "clientaddr=192.0.2.1,addr=::1", "device": "[::1]:/"},
            ("[::1]:/", "nfs4", 0, "clientaddr=192.0.2.1,addr=::1"),
        ),
        (
            {"type": "cifs", "o": "username=u,password=addr", "device": "//localhost/share"},
            ("//127.0.0.1/share", "cifs", 0, "username=u,password=addr"),
        ),
        (
            {"type": "cifs", "o": "addr=localhost,port=1445", "device": "//name/share"},
            ("//name/share", "cifs", 0, "addr=127.0.0.1,port=1445"),
        ),
        ({"type": "none", "o": "bind", "device": "/srv"}, ("/srv", "", MountFlags.BIND, "")),
        ({"type": "ext4", "o": "", "device": "/dev/x"}, ("/dev/x", "ext4", 0, "")),
    ],
)
def test_what_mount_is_told(options: dict[str, str], arguments: tuple[str, str, int, str]) -> None:
    assert mount_arguments(options) == arguments


def test_mount_options_as_mobys_parser_takes_them() -> None:
    both = MountFlags.BIND | MountFlags.REC
    assert parse_options("rbind,rslave,ro") == (both | MountFlags.SLAVE | MountFlags.RDONLY, "")
    assert parse_options("ro,rw,noatime,atime,sync,async,dirsync,mand,nomand") == (MountFlags.DIRSYNC, "")
    assert parse_options("defaults,,size=1m,x-y") == (0, "size=1m,x-y")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_propagation_and_flags_of_a_bind_are_had(tmp_path: Path) -> None:
    service = VolumeService(tmp_path / "volumes")
    (tmp_path / "host").mkdir()
    options = {"type": "none", "device": str(tmp_path / "host"), "o": "bind,ro,nosuid,private"}
    service.create("vol", options=options)
    path = service.mount("vol", "c")
    try:
        listed = Path("/proc/self/mountinfo").read_text().splitlines()
        line = next(line for line in listed if f" {path} " in line)
        assert {"ro", "nosuid"} <= set(line.split()[5].split(","))
        assert "shared:" not in line
    finally:
        service.unmount("vol", "c")
        service.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_password_is_not_told(tmp_path: Path) -> None:
    service = VolumeService(tmp_path / "volumes")
    options = {
        "type": "nonsense",
        "device": "x",
        "o": "username=u,password=hunter2,pass=hunter2,password2=hunter2",
    }
    service.create("vol", options=options)
    with pytest.raises(System, match=r"data: username=u,(\w+=\*{8},?){3}: no such device"):
        service.mount("vol", "c")
    service.close()


def noted(root: Path) -> set[str]:
    """What the database says at this moment, whoever has it open."""
    copy = root.parent / "copy.db"
    shutil.copyfile(root / "metadata.db", copy)
    database = SharedDatabase(copy)
    try:
        return {name.decode() for name in database.open().bucket(b"volumes").values()}
    finally:
        database.close()


def test_dockerds_database_is_told_of_all_at_the_end(tmp_path: Path) -> None:
    root = tmp_path / "volumes"
    service = VolumeService(root)
    deadline = time.monotonic() + 20
    while service._database._timer is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    names = {f"v{number:02}" for number in range(40)}
    for name in sorted(names):
        service.create(name)
    service.remove("v00")
    service.close()  # whatever still waits
    assert noted(root) == names - {"v00"}


def test_a_database_that_could_not_be_written_is_written_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "volumes"
    service = VolumeService(root)
    write, failed = SharedDatabase.save, []

    def full(self: SharedDatabase, content: Bucket) -> None:
        if not failed:
            failed.append(1)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, content)

    monkeypatch.setattr(SharedDatabase, "save", full)
    service.create("vol")
    service._database.save_now(service._metadata)
    service._database.save_now(service._metadata)
    assert failed
    assert noted(root) == {"vol"}
    service.close()


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    """An XFS that counts by project."""
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        pytest.skip("needs root and mkfs.xfs")
    disk, place = tmp_path / "disk", tmp_path / "xfs"
    with disk.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", disk], check=True)
    place.mkdir()
    if subprocess.run(["mount", "-o", "loop,pquota", disk, place], capture_output=True).returncode != 0:
        pytest.skip("this kernel has no XFS, or no quotas of it")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> int:
    """Bytes that could be written, of 30 MB."""
    with (place / "big").open("wb", buffering=0) as file:
        try:
            for _ in range(30):
                file.write(bytes(1 << 20))
        except OSError as exc:
            assert exc.errno in (errno.ENOSPC, errno.EDQUOT)
    return (place / "big").stat().st_size


def test_the_size_of_a_volume(xfs: Path) -> None:
    service = VolumeService(xfs / "volumes")
    for name, size in (("small", "10m"), ("large", "20m")):
        service.create(name, options={"size": size})
    service.create("free")
    service.close()
    again = VolumeService(xfs / "volumes")
    again.create("new", options={"size": "5m"})
    for name, most in (("small", 10 << 20), ("large", 20 << 20), ("new", 5 << 20), ("free", 30 << 20)):
        written = fill(again.mount(name, "c"))
        assert most - (1 << 20) <= written <= most, name
    assert again.get("small").Options == {"size": "10m"}
    again.close()
    shutil.rmtree(xfs / "volumes")


def test_a_size_needs_a_file_system_that_counts(tmp_path: Path) -> None:
    service = VolumeService(tmp_path / "volumes")
    if subprocess.run(["findmnt", "-no", "OPTIONS", "-T", tmp_path], capture_output=True).stdout.count(
        b"prjquota"
    ):
        pytest.skip("this file system does")
    with pytest.raises(InvalidParameter, match="create vol: quota size requested but no quota support"):
        service.create("vol", options={"size": "1m"})
    for size in ("many", "1.2.3", "٣m", "9" * 400, "1e9", "9999999p"):
        with pytest.raises(InvalidParameter, match=f"create vol: invalid size: '{size}'"):
            service.create("vol", options={"size": size})
    service.create("vol", options={"size": "0"})
    service.close()
