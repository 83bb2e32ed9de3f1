"""A daemon's life on other file systems than the machine's, which is ext4 mostly."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Longshored
from harness.filesystems import DOCKER_NAMES, filesystem


@pytest.mark.parametrize("kind", ["xfs", "btrfs", "tmpfs"])
def test_a_life(kind: str, tmp_path: Path, root: None, machine: object, busybox_archive: Path) -> None:
    with filesystem(kind, tmp_path) as place:
        daemon = Longshored("--data-root", str(place))
        try:
            daemon.start()
            daemon.load(busybox_archive)
            docker, name = daemon.docker, DOCKER_NAMES.get(kind, kind)
            info = docker.out("info", "--format", "{{.Driver}} {{index (index .DriverStatus 0) 1}}")
            assert info == f"overlay2 {name}"
            script = "echo kept > /kept; rm /www/index.html; mkfifo /pipe"
            docker.out("run", "--name", "c1", "-v", "vol:/v", "busybox", "sh", "-c", script)
            assert {"A /kept", "D /www/index.html"} <= set(docker.out("diff", "c1").splitlines())
            docker.out("commit", "c1", "made")
            daemon.restart()
            assert docker.out("run", "--rm", "made", "cat", "/kept") == "kept"
            docker.out("rm", "-v", "c1")
            docker.out("rmi", "made", "busybox")
            docker.out("volume", "rm", "vol")
            assert {path.name for path in (place / "overlay2").iterdir()} == {"l"}
        finally:
            daemon.destroy()
