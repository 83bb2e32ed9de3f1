"""docker checkpoint: what can be told without CRIU, and what CRIU does where it works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Longshored


@pytest.fixture(scope="module")
def experimental(root: None, busybox_archive: Path) -> Iterator[Longshored]:
    daemon = Longshored("--experimental")
    try:
        daemon.start()
        daemon.load(busybox_archive)
        yield daemon
    finally:
        daemon.destroy()


def test_only_in_experimental_mode(daemon: Longshored) -> None:
    answer = daemon.client.get("/containers/any/checkpoints")
    assert answer.status == 501 and "experimental mode" in answer.message


def test_what_cannot_be_checkpointed(experimental: Longshored) -> None:
    docker, api = experimental.docker, experimental.client
    docker("create", "--name", "idle", "busybox", "true")
    docker("run", "-dt", "--name", "typed", "busybox", "sleep", "60")
    docker("run", "-d", "--name", "up", "busybox", "sleep", "60")
    for name, checkpoint, status, text in (
        ("nobody", "one", 404, "No such container: nobody"),
        ("idle", "one", 409, "Container idle not running"),
        ("typed", "one", 409, "checkpoint not supported on containers with tty"),
        ("up", "../../up", 400, "invalid checkpoint ID (../../up)"),
    ):
        answer = api.post(f"/containers/{name}/checkpoints", {"CheckpointID": checkpoint})
        assert answer.status == status and text in answer.message, name
    assert api.request("DELETE", "/containers/up/checkpoints/none").status == 404
    assert api.get("/containers/up/checkpoints").json == []


def test_a_failure_of_criu_is_told_and_leaves_nothing(experimental: Longshored) -> None:
    if shutil.which("criu"):
        pytest.skip("CRIU is installed: it may well succeed")
    docker, api = experimental.docker, experimental.client
    docker("run", "-d", "--name", "goes-on", "busybox", "sleep", "60")
    answer = api.post("/containers/goes-on/checkpoints", {"CheckpointID": "first", "Exit": True})
    assert answer.status == 500
    assert answer.message.startswith("Cannot checkpoint container goes-on: ")
    assert api.get("/containers/goes-on/checkpoints").json == []
    assert docker.out("inspect", "-f", "{{.State.Running}}", "goes-on") == "true"


def test_checkpoint_and_start_from_it(experimental: Longshored) -> None:
    if not shutil.which("criu"):
        pytest.skip("CRIU is not installed")
    docker = experimental.docker
    script = "trap 'exit 3' TERM; i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done"
    docker("run", "-d", "--name", "count", "-p", "18098:80", "busybox", "sh", "-c", script)

    def counted() -> int:
        return int(docker.out("logs", "--tail", "1", "count") or 0)

    while counted() < 3:
        pass
    created = docker("checkpoint", "create", "--leave-running", "count", "first", check=False)
    if created.returncode:
        pytest.skip(f"CRIU does not work on this machine: {created.stderr.strip()}")
    noted = counted()
    while counted() < noted + 5:
        pass
    docker("checkpoint", "create", "count", "second")
    docker("wait", "count")
    assert docker.out("checkpoint", "ls", "count").split()[2:] == ["first", "second"]
    last = counted()
    for checkpoint, least, most in (("second", last, last + 50), ("first", 3, noted + 2)):
        docker("start", "--checkpoint", checkpoint, "count")
        while counted() == last:
            pass
        assert docker.out("exec", "count", "cat", "/proc/1/comm") == "sh"
        assert "inet 172." in docker.out("exec", "count", "ip", "-4", "addr", "show", "eth0")
        pid = docker.out("inspect", "-f", "{{.State.Pid}}", "count")
        assert (Path("/proc") / pid / "comm").read_text() == "sh\n"
        docker("stop", "count")
        assert docker.out("inspect", "-f", "{{.State.ExitCode}}", "count") == "3"
        numbers = list(map(int, docker.out("logs", "count").split()))
        begun = numbers[numbers.index(last) + 1]
        assert least < begun <= most, numbers
        last = numbers[-1]
    docker("checkpoint", "rm", "count", "first")
    assert docker.out("checkpoint", "ls", "count").split()[2:] == ["second"]
    docker("rm", "count")
