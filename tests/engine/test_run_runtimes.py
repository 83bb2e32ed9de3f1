"""Containers in runtimes other than the default."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness import DockerCLI


def obstacle() -> str | None:
    """Why crun cannot run on this machine."""
    if shutil.which("crun") is None:
        return "crun is not installed"
    controllers = Path("/sys/fs/cgroup/unified/cgroup.controllers")
    if controllers.exists() and controllers.read_text().split():
        return (
            "crun: cgroups in hybrid mode not supported, drop all controllers from cgroupv2 "
            f"(it has: {controllers.read_text().strip()}; binding them to v1 would change the whole machine)"
        )
    return None


def test_crun(docker: DockerCLI) -> None:
    if reason := obstacle():
        pytest.skip(reason)
    assert docker.out("run", "--rm", "--runtime", "crun", "busybox", "echo", "hello") == "hello"


def test_what_a_runtime_says_reaches_the_user(docker: DockerCLI) -> None:
    if obstacle() is None or shutil.which("crun") is None:
        pytest.skip("crun can run here")
    done = docker("run", "--rm", "--runtime", "crun", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "OCI runtime create failed: cgroups in hybrid mode not supported" in done.stderr


def test_the_runtime_by_its_other_name(docker: DockerCLI) -> None:
    assert docker.out("run", "--rm", "--runtime", "io.containerd.runc.v2", "busybox", "echo", "a") == "a"


def test_a_runtime_that_nobody_knows(docker: DockerCLI) -> None:
    done = docker("run", "--rm", "--runtime", "nosuch", "busybox", check=False)
    assert "Error response from daemon: unknown or invalid runtime name: nosuch" in done.stderr
    assert docker.out("ps", "-aq") == ""
