"""Finding files to copy, and copying them, without the daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from longshore.build.copying import CopyJob, apply_mode, perform_copy
from longshore.build.owners import Owner, parse_owner
from longshore.build.sources import find_sources
from longshore.build.state import go_duration
from longshore.errors import InvalidParameter, NotFound
from longshore.layers.idmap import IdMap


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for path in ("a.txt", "b.txt", "d/x", "d/sub/y", "d/sub/z.md"):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    (root / "d/link").symlink_to("x")
    (root / "out").symlink_to("/etc/passwd")
    (root / "odd*name").write_text("")
    return root


def found(tree: Path, *patterns: str, parents: bool = False) -> list[str]:
    return [source.path for source in find_sources(tree, list(patterns), [], parents=parents)]


def test_sources(tree: Path) -> None:
    assert found(tree, "b.txt", "*.txt") == ["b.txt", "a.txt", "b.txt"]
    assert found(tree, "/a.txt", "./d/", "d/*/y", "**/y", "d/./sub/y") == [
        "a.txt",
        "d",
        "d/sub/y",
        "d/sub/y",
        "d/sub/y",
    ]
    assert found(tree, "odd[*]name") == ["odd*name"]
    with pytest.raises(NotFound, match="stat nope: file does not exist"):
        found(tree, "nope")
    with pytest.raises(NotFound, match="no source files were specified"):
        found(tree, "*.nope")
    with pytest.raises(NotFound):
        found(tree, "out")


def test_a_digest_is_of_content_name_and_mode(tree: Path) -> None:
    def digest(pattern: str) -> str:
        return find_sources(tree, [pattern], [])[0].hash

    before, directory = digest("a.txt"), digest("d")
    os.utime(tree / "a.txt", (1, 1))
    os.utime(tree / "d/x", (1, 1))
    assert (digest("a.txt"), digest("d")) == (before, directory)
    (tree / "a.txt").chmod(0o755)
    assert digest("a.txt") != before
    (tree / "d/x").rename(tree / "d/w")
    assert digest("d") != directory
    assert find_sources(tree, ["d"], ["sub"])[0].hash != digest("d")


@pytest.mark.parametrize(
    ("chmod", "mode", "directory", "expected"),
    [
        ("755", 0o600, False, 0o755),
        ("04711", 0o600, False, 0o4711),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("a+x", 0o644, False, 0o755),
        ("+x", 0o644, False, 0o755),
        ("go-rwx", 0o777, False, 0o700),
        ("g=u", 0o750, False, 0o770),
        ("o+g,g-x", 0o654, False, 0o645),
        ("u=rw+x-w", 0o400, False, 0o500),
        ("u+s,o+t", 0o755, False, 0o5755),
    ],
)
def test_modes(chmod: str, mode: int, directory: bool, expected: int) -> None:
    assert apply_mode(chmod, mode, is_directory=directory) == expected


@pytest.mark.parametrize("chmod", ["8", "x", "u=q", "123456", "u+x,"])
def test_modes_that_are_none(chmod: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid chmod parameter"):
        apply_mode(chmod, 0o644, is_directory=False)


def test_owners(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("me:x:7:8::/:\n")
    (tmp_path / "etc/group").write_text("me:x:9:\nwe:x:10:\n")
    assert parse_owner("me", tmp_path) == Owner(7, 9)
    assert parse_owner("me:we", tmp_path) == Owner(7, 10)
    assert parse_owner("5", tmp_path) == Owner(5, 5)
    assert parse_owner("5:we", tmp_path) == Owner(5, 10)
    with pytest.raises(InvalidParameter, match="no such group: nope"):
        parse_owner("me:nope", tmp_path)
    with pytest.raises(InvalidParameter, match="invalid chown string format"):
        parse_owner("a:b:c", tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_hard_links_stay_together(tree: Path, tmp_path: Path) -> None:
    (tree / "d/hard").hardlink_to(tree / "d/x")
    target = tmp_path / "target"
    target.mkdir()
    perform_copy(target, IdMap(), CopyJob(find_sources(tree, ["d"], []), "/into", chmod="u=rwX,go="))
    assert (target / "into/hard").samefile(target / "into/x")
    assert (target / "into/link").readlink() == Path("x")
    assert (target / "into/sub").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("nanoseconds", "told"),
    [
        (0, "0s"),
        (1500, "1.5µs"),
        (5 * 10**8, "500ms"),
        (1500 * 10**6, "1.5s"),
        (90 * 10**9, "1m30s"),
        (3600 * 10**9, "1h0m0s"),
    ],
)
def test_durations_as_go_prints_them(nanoseconds: int, told: str) -> None:
    assert go_duration(nanoseconds) == told
