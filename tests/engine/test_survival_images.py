"""A daemon that is killed while it loads, pushes or removes: nothing half made, and the space given back."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Layer, Longshored, docker_archive
from harness.registry import FakeRegistry

NOISE = random.Random(7).randbytes(8_000_000)


def until(true: Callable[[], object], what: str) -> None:
    """Wait for something that tells nobody."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def kept(daemon: Longshored) -> set[str]:
    """What lies on disk for images, layers and volumes, some levels deep."""
    found = set()
    for part in ("overlay2", "image", "tmp", "volumes"):
        for path in (daemon.data_root / part).rglob("*"):
            relative = path.relative_to(daemon.data_root)
            if len(relative.parts) <= (3 if part in ("overlay2", "volumes") else 9):
                found.add(str(relative))
    # Hints about registries, and a database that is being written, are not space to give back.
    return {path for path in found if "/distribution" not in path and ".tmp-metadata.db-" not in path}


def killed(daemon: Longshored, *clients: subprocess.Popen[Any]) -> None:
    """Kill the daemon, let its clients end, and start it again."""
    daemon.kill()
    for each in clients:
        each.kill()
        each.communicate()
    daemon.start()


def test_a_kill_in_the_middle_of_a_load(fresh_daemon: Longshored, tmp_path: Path) -> None:
    files = {f"d{number % 50}/f{number}": b"x" for number in range(4000)}
    docker_archive(tmp_path / "image.tar", [Layer({"a": b"x"}), Layer(files)], ["app:latest"])
    before = kept(fresh_daemon)
    layers = fresh_daemon.data_root / "overlay2"
    here = len(list(layers.iterdir()))
    load = fresh_daemon.docker.popen("load", "-i", str(tmp_path / "image.tar"), stdout=subprocess.DEVNULL)
    until(lambda: len(list(layers.iterdir())) >= here + 2, "nothing is being loaded")  # the large one
    killed(fresh_daemon, load)
    assert fresh_daemon.docker.out("images", "--format", "{{.Repository}}") == "busybox"
    assert kept(fresh_daemon) == before
    fresh_daemon.load(tmp_path / "image.tar")
    assert "app" in fresh_daemon.docker.out("images", "--format", "{{.Repository}}").split()


def test_a_kill_in_the_middle_of_a_push(fresh_daemon: Longshored, tmp_path: Path) -> None:
    docker = fresh_daemon.docker
    fake = FakeRegistry()
    asked, go_on = threading.Event(), threading.Event()

    def stall(handler: Any) -> bool:
        if handler.command == "PATCH" and not go_on.is_set():
            asked.set()
            go_on.wait(30)
        return False

    fake.behave = stall
    name = f"{fake.address}/team/app:1"
    try:
        docker_archive(tmp_path / "image.tar", [Layer({"a": b"x"}), Layer({"noise": NOISE})], [name])
        fresh_daemon.load(tmp_path / "image.tar")
        before = kept(fresh_daemon)
        push = docker.popen("push", name, stdout=subprocess.PIPE)
        assert asked.wait(30)
        killed(fresh_daemon, push)
        go_on.set()
        assert kept(fresh_daemon) == before
        assert not any("/manifests/" in path for method, path, _ in fake.requests if method == "PUT")
        assert "digest: sha256:" in docker.out("push", name)
    finally:
        go_on.set()
        fake.close()


def test_a_kill_in_the_middle_of_prunes(fresh_daemon: Longshored, tmp_path: Path) -> None:
    docker = fresh_daemon.docker
    before = kept(fresh_daemon)
    files = {f"d{number % 50}/f{number}": b"x" for number in range(2000)}
    docker_archive(tmp_path / "image.tar", [Layer({"a": b"x"}), Layer(files)], ["app:latest"])
    fresh_daemon.load(tmp_path / "image.tar")
    docker("run", "--rm", "-v", "big:/d", "busybox", "sh", "-c", "cd /d; for i in $(seq 2000); do > $i; done")
    content = fresh_daemon.data_root / "volumes/big/_data"
    prunes = [
        docker.popen("image", "prune", "-af", stdout=subprocess.DEVNULL),
        docker.popen("volume", "prune", "-af", stdout=subprocess.DEVNULL),
    ]
    until(lambda: not content.exists(), "nothing is being removed")
    killed(fresh_daemon, *prunes)
    assert docker.out("volume", "ls", "-q") == ""
    for image in set(docker.out("images", "-aq", "--no-trunc").split()):
        assert docker("create", image, "true").returncode == 0  # What is there is whole.
    docker("rm", *docker.out("ps", "-aq").split(), check=False)
    docker("image", "prune", "-af")
    assert docker.out("images", "-q") == ""
    left = kept(fresh_daemon) - before
    assert not left
