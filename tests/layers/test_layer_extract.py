"""Hostile archives: whatever they name, nothing outside the directory changes."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from longshore.errors import InvalidParameter
from longshore.layers.extract import Extractor, clean
from longshore.layers.idmap import IdMap
from longshore.layers.remove import remove_tree
from longshore.layers.tarstream import TarStream
from longshore.layers.unpack import unpack

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"evil") -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def special(name: str, kind: bytes, target: str = "", **attributes: int) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, b""


def archive(*members: Member) -> io.BytesIO:
    raw = b"".join(
        info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512) for info, content in members
    )
    return io.BytesIO(raw + bytes(1024))


@pytest.fixture
def extract(tmp_path: Path) -> Callable[..., Path]:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/victim").write_text("safe")

    def run(*members: Member, overlay: bool = True) -> Path:
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        unpack(archive(*members), Extractor(root, IdMap(), overlay_whiteouts=overlay), io.BytesIO())
        return root

    return run


@pytest.mark.parametrize("name", ["../outside/victim", "a/../../outside/victim", "..", "/../outside/x"])
def test_parent_references_are_refused(extract: Callable[..., Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter, match="is outside of"):
        extract(file(name))
    assert (tmp_path / "outside/victim").read_text() == "safe"


def test_absolute_names_are_below_the_root(extract: Callable[..., Path]) -> None:
    root = extract(file("/etc/evil"))
    assert (root / "etc/evil").read_bytes() == b"evil"


@pytest.mark.parametrize("target", ["{outside}", "../outside", "../../../../../../../{outside}"])
def test_links_are_not_followed_out(extract: Callable[..., Path], tmp_path: Path, target: str) -> None:
    target = target.format(outside=tmp_path / "outside")
    with pytest.raises(InvalidParameter):
        extract(special("link", tarfile.SYMTYPE, target), file("link/victim"))
    assert (tmp_path / "outside/victim").read_text() == "safe"


def test_links_within_are_followed(extract: Callable[..., Path]) -> None:
    root = extract(
        special("usr", tarfile.DIRTYPE, mode=0o755),
        special("usr/lib", tarfile.DIRTYPE, mode=0o755),
        special("lib", tarfile.SYMTYPE, "/usr/lib"),
        file("lib/x"),
    )
    assert (root / "usr/lib/x").read_bytes() == b"evil"


def test_directory_swapped_for_a_link(extract: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter):
        extract(
            special("d", tarfile.DIRTYPE, mode=0o755),
            file("d/first"),
            special("d/", tarfile.SYMTYPE, str(tmp_path / "outside")),
            file("d/victim"),
        )
    assert (tmp_path / "outside/victim").read_text() == "safe"


def test_file_replaces_a_link_instead_of_writing_through(
    extract: Callable[..., Path], tmp_path: Path
) -> None:
    victim = tmp_path / "outside/victim"
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").symlink_to(victim)
    extract(file("f"))
    assert victim.read_text() == "safe"
    assert (root / "f").read_bytes() == b"evil"
    assert not (root / "f").is_symlink()


@pytest.mark.parametrize("target", ["../outside/victim", "{outside}/victim", "link/victim"])
def test_hard_links_stay_inside(extract: Callable[..., Path], tmp_path: Path, target: str) -> None:
    target = target.format(outside=tmp_path / "outside")
    with pytest.raises(InvalidParameter):
        extract(
            special("link", tarfile.SYMTYPE, str(tmp_path / "outside")),
            special("hard", tarfile.LNKTYPE, target),
        )
    assert (tmp_path / "outside/victim").stat().st_nlink == 1


def test_hard_link_to_a_link_links_the_link(extract: Callable[..., Path], tmp_path: Path) -> None:
    root = extract(
        special("link", tarfile.SYMTYPE, str(tmp_path / "outside/victim")),
        special("hard", tarfile.LNKTYPE, "link"),
    )
    assert (root / "hard").is_symlink()
    assert (tmp_path / "outside/victim").stat().st_nlink == 1


@pytest.mark.parametrize("name", [".wh...", ".wh..", ".wh.", "d/.wh..."])
def test_whiteout_of_parents_is_refused(extract: Callable[..., Path], name: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid whiteout name"):
        extract(file(name, b""))


def test_whiteouts_become_overlayfs_own(extract: Callable[..., Path]) -> None:
    root = extract(file("d/.wh.gone", b""), file("d/.wh..wh..opq", b""), file("d/x"))
    gone = (root / "d/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(root / "d", "trusted.overlay.opaque") == b"y"


def test_whiteouts_remove_without_overlay(extract: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "root/d/old").mkdir(parents=True)
    (tmp_path / "root/gone").symlink_to(tmp_path / "outside")
    root = extract(file("d/new"), file("d/.wh..wh..opq", b""), file(".wh.gone", b""), overlay=False)
    assert [each.name for each in (root / "d").iterdir()] == ["new"]
    assert not (root / "gone").is_symlink()
    assert (tmp_path / "outside/victim").exists()


def test_overlay_attributes_are_not_taken(extract: Callable[..., Path]) -> None:
    info, content = special("d", tarfile.DIRTYPE, mode=0o755)
    info.pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.mine": "1"}
    root = extract((info, content))
    assert os.listxattr(root / "d") == ["user.mine"]


def test_capabilities_and_modes_survive_the_owner(extract: Callable[..., Path]) -> None:
    info, content = file("ping")
    capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    info.mode, info.uid, info.gid = 0o4755, 12, 34
    info.pax_headers = {
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "mtime": "1600000000.123456789",
    }
    root = extract((info, content))
    there = (root / "ping").stat()
    assert (stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid) == (0o4755, 12, 34)
    assert there.st_mtime_ns == 1_600_000_000_123_456_789
    assert os.getxattr(root / "ping", "security.capability") == capability


def test_devices_are_made_but_not_without_end(
    extract: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = extract(special("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666))
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    monkeypatch.setattr("longshore.layers.extract._MOST_DEVICES", 10)
    with pytest.raises(InvalidParameter, match="device nodes"):
        extract(*(special(f"n{number}", tarfile.CHRTYPE, devmajor=1, devminor=3) for number in range(11)))


def test_duplicate_names_are_refused(extract: Callable[..., Path]) -> None:
    with pytest.raises(InvalidParameter, match="duplicates of file paths not supported"):
        extract(file("a"), file("./a"))


def test_sparse_files_keep_their_holes(extract: Callable[..., Path], tmp_path: Path) -> None:
    import subprocess

    source = tmp_path / "sparse"
    with source.open("wb") as hollow:
        hollow.write(b"head")
        hollow.seek(1 << 20)
        hollow.write(b"middle")
        hollow.truncate(3 << 20)
    for format in ("gnu", "pax"):
        packed = subprocess.run(
            ["tar", "-C", tmp_path, "-S", f"--format={format}", "-c", "sparse"], stdout=subprocess.PIPE
        ).stdout
        assert len(packed) < 100_000
        root = tmp_path / format
        root.mkdir()
        unpack(io.BytesIO(packed), Extractor(root, IdMap()), io.BytesIO())
        assert (root / "sparse").read_bytes() == source.read_bytes()
        assert (root / "sparse").stat().st_blocks * 512 < 100_000


def test_damaged_header(extract: Callable[..., Path], tmp_path: Path) -> None:
    raw = bytearray(archive(file("a"), file("b")).getvalue())
    raw[1024] ^= 1
    (tmp_path / "r").mkdir()
    with pytest.raises(InvalidParameter, match="invalid tar header"):
        unpack(io.BytesIO(bytes(raw)), Extractor(tmp_path / "r", IdMap()), io.BytesIO())


def test_no_descriptor_is_left_open(extract: Callable[..., Path]) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    extract(*(file(f"d{number}/f") for number in range(300)))
    with pytest.raises(InvalidParameter):
        extract(file("x/y"), file("../z"))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize(
    ("name", "cleaned"), [("a/b", "a/b"), ("./a", "a"), ("a//b/", "a/b"), ("/", "."), ("a/./b/..", "a")]
)
def test_clean(name: str, cleaned: str) -> None:
    assert clean(name) == cleaned


def test_removal_does_not_follow_links_and_goes_deep(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/victim").write_text("safe")
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(tmp_path / "outside")
    directory = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    remove_tree(top)
    assert not top.exists()
    assert (tmp_path / "outside/victim").read_text() == "safe"


@pytest.mark.parametrize(
    "attributes",
    [{"uid": 1 << 40}, {"mtime": 1 << 70, "type": tarfile.DIRTYPE}, {"pax_headers": {"path": "a\0b"}}],
    ids=str,
)
def test_what_the_kernel_cannot_take_is_damage(
    extract: Callable[..., Path], attributes: dict[str, object]
) -> None:
    info = tarfile.TarInfo("a")
    for key, value in attributes.items():
        setattr(info, key, value)
    with pytest.raises(InvalidParameter, match="invalid tar header"):
        extract((info, b""))


def test_records_before_an_entry_have_an_end() -> None:
    record = tarfile.TarInfo("x")
    record.type = b"g"
    with pytest.raises(InvalidParameter, match="too many records"):
        TarStream(iter([record.tobuf() * 100]).__next__).next()


@pytest.mark.parametrize("numbers", ["x,1", "0,x"])
def test_a_sparse_map_that_is_no_numbers(extract: Callable[..., Path], numbers: str) -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"GNU.sparse.map": numbers, "GNU.sparse.size": "10"}
    with pytest.raises(InvalidParameter, match="sparse map"):
        extract((info, b""))
