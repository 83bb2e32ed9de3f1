"""Containers in runtimes other than the default."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import DockerCLI, Longshored

from longshore.linux.mount import is_mount_point, mount, umount

UNIFIED = Path("/sys/fs/cgroup/unified/cgroup.controllers")


def stray_controllers() -> list[str]:
    """Controllers in the v2 tree of a hybrid machine, with which crun does not run."""
    return UNIFIED.read_text().split() if UNIFIED.exists() else []


@pytest.fixture
def crun_daemon(root: None, tmp_path: Path, busybox_archive: Path) -> Iterator[Longshored]:
    """A daemon on a machine where crun runs: a controller left in v2 is bound to v1 for the time being."""
    if shutil.which("crun") is None:
        pytest.skip("crun is not installed")
    stray = stray_controllers()
    if stray not in ([], ["hugetlb"]):
        pytest.skip(f"crun: cgroups in hybrid mode not supported; {stray} cannot be bound to v1 here")
    hierarchy = tmp_path / "hugetlb"
    hierarchy.mkdir()
    if stray:
        mount("cgroup", hierarchy, "cgroup", data="hugetlb")
    daemon = Longshored()
    try:
        daemon.start()
        daemon.load(busybox_archive)
        yield daemon
    finally:
        daemon.destroy()
        if stray:
            _give_back(hierarchy)


def _give_back(hierarchy: Path) -> None:
    """The controller returns to v2 once its v1 hierarchy is empty and nobody has it mounted."""
    deadline = time.monotonic() + 10
    while stray_controllers() != ["hugetlb"] and time.monotonic() < deadline:
        if not is_mount_point(hierarchy):
            mount("cgroup", hierarchy, "cgroup", data="hugetlb")
        for directory, _, _ in os.walk(hierarchy, topdown=False):
            if directory != str(hierarchy):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
        umount(hierarchy)
        time.sleep(0.2)
    assert stray_controllers() == ["hugetlb"]


@pytest.mark.proves("HostConfig.Runtime")
def test_crun(crun_daemon: Longshored) -> None:
    docker = crun_daemon.docker
    run = ("run", "--rm", "--runtime", "crun")
    assert docker.out(*run, "busybox", "echo", "hello") == "hello"
    assert docker.out(*run, "-i", "busybox", "cat", input="typed") == "typed"
    assert docker(*run, "busybox", "sh", "-c", "exit 7", check=False).returncode == 7
    limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    if not Path(limit).exists():
        limit = "/sys/fs/cgroup/memory.max"
    assert docker.out(*run, "--memory", "64m", "busybox", "cat", limit) == str(64 << 20)
    assert "eth0" in docker.out(*run, "-p", "18097:80", "busybox", "ip", "addr")
    failed = docker("run", "--name", "bad", "--runtime", "crun", "busybox", "nonexistent", check=False)
    assert "executable file `nonexistent` not found in $PATH" in failed.stderr
    assert docker.out("inspect", "-f", "{{.State.ExitCode}} {{.HostConfig.Runtime}}", "bad") == "127 crun"


def test_crun_beside_runc(crun_daemon: Longshored) -> None:
    docker = crun_daemon.docker
    docker("run", "-d", "--name", "one", "--runtime", "crun", "busybox", "sleep", "60")
    docker("run", "-d", "--name", "two", "--network", "container:one", "busybox", "sleep", "60")
    assert docker.out("exec", "one", "hostname") == docker.out("exec", "two", "hostname")
    crun_daemon.kill()
    crun_daemon.start()
    assert docker.out("exec", "one", "echo", "still here") == "still here"
    docker("pause", "one")
    docker("unpause", "one")
    docker("stop", "-t", "1", "one", "two")


def test_what_a_runtime_says_reaches_the_user(docker: DockerCLI) -> None:
    if not stray_controllers() or shutil.which("crun") is None:
        pytest.skip("crun can run here, or is not installed")
    done = docker("run", "--rm", "--runtime", "crun", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "OCI runtime create failed: cgroups in hybrid mode not supported" in done.stderr


def test_the_runtime_by_its_other_name(docker: DockerCLI) -> None:
    assert docker.out("run", "--rm", "--runtime", "io.containerd.runc.v2", "busybox", "echo", "a") == "a"


def test_a_runtime_that_nobody_knows(docker: DockerCLI) -> None:
    done = docker("run", "--rm", "--runtime", "nosuch", "busybox", check=False)
    assert "Error response from daemon: unknown or invalid runtime name: nosuch" in done.stderr
    assert docker.out("ps", "-aq") == ""
