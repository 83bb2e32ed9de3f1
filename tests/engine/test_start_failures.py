"""Starts that fail: the message, the exit code, what is recorded, and that nothing is left behind."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import DockerCLI, Longshored
from harness.machine import cgroups_under, mounts_under

HINT = (
    "Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)


def state(docker: DockerCLI, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker.out("inspect", "-f", "{{json .State}}", name))
    return found


def leavings(daemon: Longshored, id: str) -> list[str]:
    """What a container that does not run still has on the machine."""
    found = [mount for mount in mounts_under(daemon.root) if "/overlay2/" in mount or "/mounts/" in mount]
    found += [str(path) for path in cgroups_under(id)]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    bridge = f"master {_bridge(daemon)} "
    found += [line for line in links.splitlines() if bridge in line]
    tasks = daemon.exec_root / "containerd" / "daemon" / "io.containerd.runtime.v2.task" / "moby"
    found += [str(path) for path in tasks.glob(f"{id}*")]
    return found + daemon.namespaces_left()


def _bridge(daemon: Longshored) -> str:
    found = daemon.client.get("/networks/bridge").json
    return str(found["Options"]["com.docker.network.bridge.name"])


def nothing_left(daemon: Longshored, id: str) -> bool:
    deadline = time.monotonic() + 5
    while left := leavings(daemon, id):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    return True


Case = tuple[list[str], int, int, str]
CASES: dict[str, Case] = {
    "command not found": (["busybox", "nosuch"], 127, 127, '"nosuch": executable file not found in $PATH'),
    "path not found": (["busybox", "/no/such"], 127, 127, "no such file or directory"),
    "not executable": (["busybox", "/etc/passwd"], 126, 126, '"/etc/passwd": permission denied'),
    "a directory": (["busybox", "/etc"], 126, 126, 'exec: "/etc": '),
    "file onto directory": (["-v", "{file}:/tmp", "busybox", "true"], 125, 127, HINT),
    "directory onto file": (["-v", "{dir}:/etc/passwd", "busybox", "true"], 125, 127, HINT),
    "no such network": (["--network", "nosuch", "busybox", "true"], 125, 128, "network nosuch not found"),
    "no such user": (
        ["-u", "nosuch", "busybox", "true"],
        125,
        128,
        "unable to find user nosuch: no matching entries in passwd file",
    ),
    "no such group": (
        ["-u", "user:nosuch", "busybox", "true"],
        125,
        128,
        "unable to find group nosuch: no matching entries in group file",
    ),
    "no such added group": (
        ["--group-add", "nosuch", "busybox", "true"],
        125,
        128,
        "Unable to find group nosuch",
    ),
    "no such device": (
        ["--device", "/dev/nosuch", "busybox", "true"],
        127,
        128,
        'error gathering device information while adding custom device "/dev/nosuch": '
        "no such file or directory",
    ),
    "not a shared mount": (["-v", "{dir}:/x:shared", "busybox", "true"], 125, 128, "not a shared mount"),
    "a sysctl that does not exist": (
        ["--sysctl", "net.ipv4.nosuch=1", "busybox", "true"],
        127,
        128,
        "net/ipv4/nosuch",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_failed_start_says_why_and_leaves_nothing(
    daemon: Longshored, docker: DockerCLI, tmp_path: Path, case: str
) -> None:
    arguments, cli_code, exit_code, message = CASES[case]
    (tmp_path / "file").write_text("")
    given = [word.format(file=tmp_path / "file", dir=tmp_path) for word in arguments]
    done = docker("run", "--name", "failing", *given, check=False)
    assert done.returncode == cli_code, done.stderr
    assert message in done.stderr
    found = state(docker, "failing")
    assert found["ExitCode"] == exit_code
    assert message in found["Error"]
    assert found["Status"] == "created"
    assert (found["Running"], found["Pid"]) == (False, 0)
    assert found["StartedAt"] == "0001-01-01T00:00:00Z"
    id = docker.out("inspect", "-f", "{{.Id}}", "failing")
    assert nothing_left(daemon, id)
    assert docker("rm", "failing").stdout == "failing\n"


def test_a_container_can_be_started_once_the_cause_is_gone(
    daemon: Longshored, docker: DockerCLI, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    id = docker.out(
        "create", "--name", "retried", "--mount", f"type=bind,src={source},dst=/x", "busybox", "ls", "/x"
    )
    source.rmdir()
    done = docker("start", "-a", "retried", check=False)
    assert done.returncode == 1
    wanted = f'invalid mount config for type "bind": bind source path does not exist: {source}'
    assert wanted in done.stderr
    assert state(docker, "retried")["Error"] == wanted
    assert nothing_left(daemon, id)
    source.mkdir()
    (source / "here").touch()
    assert docker.out("start", "-a", "retried") == "here"
    found = state(docker, "retried")
    assert (found["Error"], found["ExitCode"], found["Status"]) == ("", 0, "exited")


def test_a_port_in_use_by_another_container(daemon: Longshored, docker: DockerCLI) -> None:
    port = _free_port()
    docker("run", "-d", "--name", "holder", "-p", f"127.0.0.1:{port}:80", "busybox", "sleep", "600")
    done = docker("run", "--name", "late", "-p", f"127.0.0.1:{port}:80", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "driver failed programming external connectivity on endpoint late (" in done.stderr
    assert f"Bind for 127.0.0.1:{port} failed: port is already allocated" in done.stderr
    assert state(docker, "late")["ExitCode"] == 128
    docker("rm", "-f", "holder")
    assert docker("start", "-a", "late").returncode == 0
    assert nothing_left(daemon, docker.out("inspect", "-f", "{{.Id}}", "late"))


def test_a_port_in_use_by_another_program(daemon: Longshored, docker: DockerCLI) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = docker("run", "--rm", "-p", f"127.0.0.1:{port}:80", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "address already in use" in done.stderr


def test_a_layer_that_is_gone_fails_the_start(daemon: Longshored, docker: DockerCLI) -> None:
    id = docker.out("create", "--name", "broken", "busybox", "true")
    data = json.loads(docker.out("inspect", "-f", "{{json .GraphDriver.Data}}", "broken"))
    upper = Path(data["UpperDir"])
    aside = upper.with_name("aside")
    upper.rename(aside)
    try:
        done = docker("start", "broken", check=False)
        assert done.returncode == 1
        found = state(docker, "broken")
        assert (found["ExitCode"], found["Running"]) == (128, False)
        assert found["Error"]
        assert nothing_left(daemon, id)
    finally:
        aside.rename(upper)
    docker("start", "-a", "broken")


def test_rm_takes_a_container_away_whose_start_failed(docker: DockerCLI) -> None:
    done = docker("run", "--rm", "--name", "gone", "busybox", "nosuch", check=False)
    assert done.returncode == 127
    assert _eventually(lambda: docker("inspect", "gone", check=False).returncode == 1)
    assert docker("run", "--rm", "--name", "gone", "busybox", "true").returncode == 0


def test_rm_of_a_detached_failed_start(docker: DockerCLI) -> None:
    done = docker("run", "-d", "--rm", "--name", "gone", "--network", "nosuch", "busybox", check=False)
    assert done.returncode == 125
    assert _eventually(lambda: docker.out("ps", "-aq") == "")


def test_no_container_is_left_of_a_creation_that_failed(daemon: Longshored, docker: DockerCLI) -> None:
    before = sorted((daemon.data_root / "containers").iterdir())
    done = docker("run", "--name", "never", "-w", "/etc/passwd", "-v", "/vol", "busybox", check=False)
    assert "Cannot mkdir: /etc/passwd is not a directory" in done.stderr
    assert sorted((daemon.data_root / "containers").iterdir()) == before
    assert docker.out("volume", "ls", "-q") == ""
    assert docker("create", "--name", "never", "busybox").returncode == 0


def test_no_event_says_that_a_failed_start_started(docker: DockerCLI) -> None:
    since = f"{time.time():.9f}"
    docker("run", "--rm", "--name", "silent", "busybox", "nosuch", check=False)
    assert _eventually(lambda: docker("inspect", "silent", check=False).returncode == 1)
    until = f"{time.time() + 0.2:.9f}"
    words = ("events", "--since", since, "--until", until, "-f", "type=container", "--format", "{{.Action}}")
    seen = docker.out(*words).split()
    assert "start" not in seen
    assert seen[0] == "create"
    assert seen[-1] == "destroy"


def _eventually(condition: Callable[[], bool], timeout: float = 5) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
