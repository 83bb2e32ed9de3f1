"""Modes and contents of files, whatever others put in their place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from longshore.linux.files import chmod_nofollow, write_atomically


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield opened
    os.close(opened)


def test_a_mode_is_set_of_the_file_itself(tmp_path: Path, directory: int) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    chmod_nofollow("pipe", 0o4751, directory)
    assert stat.S_IMODE((tmp_path / "pipe").stat().st_mode) == 0o4751


def test_a_link_in_its_place_leads_nowhere(tmp_path: Path, directory: int) -> None:
    (tmp_path / "victim").touch(mode=0o600)
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        chmod_nofollow("link", 0o666, directory)
    assert stat.S_IMODE((tmp_path / "victim").stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "directory", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file"]
    assert (tmp_path / "file").read_bytes() == b"old"
