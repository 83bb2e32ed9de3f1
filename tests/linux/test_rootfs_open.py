"""Paths inside a root file system that somebody else made."""

from __future__ import annotations

import os
from pathlib import Path

from longshore.linux.rootfs_open import resolve_in_root


def test_paths_are_resolved_inside_the_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "absolute").symlink_to("/real")
    (tmp_path / "up").symlink_to("../../../../real")
    (tmp_path / "nowhere").symlink_to("/no/such")
    (tmp_path / "loop").symlink_to("loop")
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        assert resolve_in_root(root, "/absolute/new/f") == "/real/new/f"
        assert resolve_in_root(root, "up/../up") == "/real"
        assert resolve_in_root(root, "/../../real") == "/real"
        assert resolve_in_root(root, "/nowhere/x") == "/no/such/x"
        assert resolve_in_root(root, "/loop/x") == "/loop/x"
        assert resolve_in_root(root, "/") == "/"
    finally:
        os.close(root)
