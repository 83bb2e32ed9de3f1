"""Where a container's cgroup is, by each cgroup driver, and what is left of it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import DockerCLI, Longshored

from longshore.linux.host import discover

HOST = discover()
SYSTEMD = pytest.mark.skipif(
    not (Path("/run/systemd/system").is_dir() and HOST.unified), reason="needs systemd and cgroup v2"
)


@pytest.fixture(params=[pytest.param("systemd", marks=SYSTEMD), "cgroupfs"])
def driven(request: pytest.FixtureRequest, root: None, busybox_archive: Path) -> Iterator[Longshored]:
    daemon = Longshored("--exec-opt", f"native.cgroupdriver={request.param}")
    try:
        daemon.start()
        daemon.load(busybox_archive)
        yield daemon
    finally:
        daemon.destroy()


def cgroup_of(pid: str) -> str:
    """The process's cgroup, where pids are limited."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (HOST.unified and not controllers) or "pids" in controllers.split(","):
            return path.removesuffix("/container")  # which crun makes inside a scope
    raise AssertionError("no cgroup")


@pytest.mark.proves("HostConfig.CgroupParent")
def test_a_life_in_a_cgroup(driven: Longshored) -> None:
    docker, name = driven.docker, driven.root.name.replace("_", "x")
    by_systemd = "systemd" in driven.flags[-1]
    assert docker.out("info", "-f", "{{.CgroupDriver}}") == ("systemd" if by_systemd else "cgroupfs")
    parent = f"{name.replace('-', '')}.slice" if by_systemd else f"/{name}"
    for options, wanted in (
        ((), "/system.slice/docker-{id}.scope" if by_systemd else "/docker/{id}"),
        (("--cgroup-parent", parent), f"/{parent}/docker-{{id}}.scope" if by_systemd else f"/{name}/{{id}}"),
    ):
        script = "trap 'exit 3' TERM; while :; do sleep 0.1; done"
        id = docker.out(
            *("run", "-d", "--memory", "64m", "--pids-limit", "50", "--cpus", "0.5", *options),
            *("busybox", "sh", "-c", script),
        )
        pid = docker.out("inspect", "-f", "{{.State.Pid}}", id)
        assert cgroup_of(pid) == wanted.format(id=id)
        assert docker.out("exec", id, "echo", "in it") == "in it"
        docker("update", "--memory", "32m", "--memory-swap", "32m", "--pids-limit", "40", id)
        if HOST.unified:
            directory = Path("/sys/fs/cgroup", cgroup_of(pid)[1:])
            found = [(directory / file).read_text().strip() for file in ("memory.max", "pids.max", "cpu.max")]
            assert found == [str(32 << 20), "40", "50000 100000"]
        docker("pause", id)
        assert docker.out("inspect", "-f", "{{.State.Status}}", id) == "paused"
        docker("unpause", id)
        assert "sleep 0.1" in docker.out("top", id)
        assert docker.out("stats", "--no-stream", "--format", "{{.PIDs}}", id) != "0"
        driven.kill()
        driven.start()
        assert docker.out("stop", id) == id
        assert docker.out("inspect", "-f", "{{.State.ExitCode}}", id) == "3"
        docker("rm", id)
        assert not [path for path in Path("/sys/fs/cgroup").rglob(f"*{id}*") if path.is_dir()]
    if by_systemd:
        subprocess.run(["systemctl", "stop", parent], check=True, capture_output=True)
    else:
        for directory in Path("/sys/fs/cgroup").rglob(name):
            directory.rmdir()


@SYSTEMD
def test_a_parent_that_is_no_slice(docker: DockerCLI) -> None:
    done = docker("run", "--cgroup-parent", "/somewhere", "busybox", "true", check=False)
    assert done.returncode == 125 and 'should be a valid slice named as "xxx.slice"' in done.stderr


@pytest.mark.proves("HostConfig.CgroupnsMode")
def test_namespaces_of_cgroups(driven: Longshored) -> None:
    docker = driven.docker
    show = ("busybox", "cat", "/proc/self/cgroup")
    last = {
        line.split(":", 2)[2] for line in docker.out("run", "--rm", "--cgroupns", "private", *show).split()
    }
    assert last == {"/"}
    seen = docker.out("run", "--rm", "--cgroupns", "host", *show)
    assert ("docker-" if "systemd" in driven.flags[-1] else "/docker/") in seen


@pytest.mark.skipif(not HOST.memory_limit, reason="this kernel has no memory controller")
def test_one_that_ran_out_of_memory_says_so(driven: Longshored) -> None:
    docker = driven.docker
    options = ("--memory", "16m", *(("--memory-swap", "16m") if HOST.swap_limit else ()))
    hungry = "x=x; while :; do x=$x$x; done"
    for name, script, code in (
        ("itself", hungry, "137"),
        ("its-child", f"(sleep 0.2; {hungry}) & wait; sleep 1; exit 5", "5"),
    ):
        docker("run", "--name", name, *options, "busybox", "sh", "-c", script, check=False)
        deadline = time.monotonic() + 10  # The runtime may tell of it after the end.
        while docker.out("inspect", "-f", "{{.State.OOMKilled}}", name) != "true":
            assert time.monotonic() < deadline, f"{name}: nobody knows of the kill"
            time.sleep(0.1)
        assert docker.out("inspect", "-f", "{{.State.ExitCode}}", name) == code
