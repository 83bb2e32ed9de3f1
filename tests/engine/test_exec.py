"""Further processes in running containers, through the CLI and raw HTTP."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import Client, DockerCLI, Longshored


@pytest.fixture
def box(docker: DockerCLI) -> str:
    """A container that runs and does nothing."""
    return docker.out("run", "-d", "--network", "none", "busybox", "sleep", "1000")


def test_streams_stay_apart_and_the_exit_code_comes_through(docker: DockerCLI, box: str) -> None:
    done = docker("exec", box, "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_input_ends_where_the_clients_ends(docker: DockerCLI, box: str) -> None:
    text = "line\n" * 100_000
    assert docker("exec", "-i", box, "cat", input=text).stdout == text


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH: unknown'),
        ("/etc", 126, 'exec: "/etc": '),  # "permission denied"; since runc 1.2 "is a directory"
    ],
)
def test_a_command_that_cannot_run(
    docker: DockerCLI, box: str, command: str, code: int, message: str
) -> None:
    done = docker("exec", box, command, check=False)
    assert done.returncode == code
    told = done.stdout + done.stderr
    assert told.startswith("OCI runtime exec failed: exec failed: ")
    assert message in told


def test_user_directory_and_environment(docker: DockerCLI, box: str) -> None:
    told = docker.out("exec", "-u", "user", "-w", "/tmp", "-e", "A=b", box, "sh", "-c", "id -G; pwd; echo $A")
    assert told == "1000 10\n/tmp\nb"


def test_a_privileged_exec_has_more_capabilities(docker: DockerCLI, box: str) -> None:
    show = ("sh", "-c", "grep CapEff /proc/self/status")
    plain, privileged = docker.out("exec", box, *show), docker.out("exec", "--privileged", box, *show)
    assert int(privileged.split()[1], 16) & ~int(plain.split()[1], 16)


def test_many_at_once(docker: DockerCLI, box: str) -> None:
    with ThreadPoolExecutor(10) as pool:
        told = list(pool.map(lambda number: docker.out("exec", box, "echo", str(number)), range(20)))
    assert told == [str(number) for number in range(20)]


def test_refused_while_paused_or_stopped(docker: DockerCLI, api: Client, box: str) -> None:
    docker("pause", box)
    answer = api.post(f"/containers/{box}/exec", {"Cmd": ["true"]})
    assert answer.status == 409
    assert answer.message == f"Container {box} is paused, unpause the container before exec"
    docker("unpause", box)
    docker("kill", box)
    answer = api.post(f"/containers/{box}/exec", {"Cmd": ["true"]})
    assert (answer.status, answer.message) == (409, f"container {box} is not running")


def test_inspect_through_its_life(api: Client, box: str) -> None:
    id = api.post(f"/containers/{box}/exec", {"Cmd": ["sh", "-c", "exit 5"]}).expect(201).json["Id"]
    before = api.get(f"/exec/{id}/json").json
    assert (before["Running"], before["ExitCode"], before["ContainerID"]) == (False, None, box)
    assert api.get(f"/containers/{box}/json").json["ExecIDs"] == [id]
    api.post(f"/exec/{id}/start", {"Detach": True}).expect(200)
    deadline = time.monotonic() + 10
    while (after := api.get(f"/exec/{id}/json").json)["ExitCode"] is None:
        assert time.monotonic() < deadline, after
        time.sleep(0.02)
    assert (after["ExitCode"], after["Running"]) == (5, False)
    assert api.get(f"/containers/{box}/json").json["ExecIDs"] is None
    again = api.post(f"/exec/{id}/start", {"Detach": True})
    assert (again.status, again.message) == (409, f"Error: Exec command {id} has already run")
    assert api.get("/exec/nosuch/json").message == "No such exec instance: nosuch"


def test_an_exec_ends_with_its_container(docker: DockerCLI, box: str) -> None:
    client = docker.popen("exec", box, "sleep", "1000", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 10
    while "sleep 1000\n" not in (top := docker.out("top", box) + "\n") or top.count("sleep") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    docker("kill", box)
    client.communicate(timeout=10)
    assert client.returncode == 137


def test_a_killed_daemon_leaves_execs_and_container_alone(fresh_daemon: Longshored) -> None:
    docker = fresh_daemon.docker
    box = docker.out("run", "-d", "--network", "none", "busybox", "sleep", "1000")
    docker("exec", "-d", box, "sh", "-c", "sleep 1; touch /done; sleep 1000")
    fresh_daemon.kill()
    time.sleep(1.5)
    fresh_daemon.start()
    assert docker.out("inspect", "-f", "{{.State.Running}}", box) == "true"
    assert docker.out("exec", box, "ls", "/done") == "/done"


def test_a_terminal_is_sized_and_left_by_its_detach_keys(api: Client, box: str) -> None:
    attached = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": True}
    command = {"Cmd": ["sh", "-c", "stty size; cat"], "DetachKeys": "ctrl-x,y", **attached}
    id = api.post(f"/containers/{box}/exec", command).expect(201).json["Id"]
    stream = api.hijack("POST", f"/exec/{id}/start", {"Tty": True, "ConsoleSize": [40, 100]})
    told = b""
    while b"\r\n" not in told:
        told += stream.recv()
    assert told == b"40 100\r\n"
    api.post(f"/exec/{id}/resize", None, h=10, w=20).expect(200)
    stream.send(b"\x18y")
    stream.read_all()
    assert api.get(f"/exec/{id}/json").json["Running"]


def test_the_hijacked_stream_is_multiplexed(api: Client, box: str) -> None:
    attached = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
    id = api.post(f"/containers/{box}/exec", {"Cmd": ["sh", "-c", "cat; echo e >&2"], **attached}).json["Id"]
    stream = api.hijack("POST", f"/exec/{id}/start", {}, early=b"early")
    stream.send(b"more")
    stream.close_write()
    frames = stream.frames()
    assert b"".join(data for kind, data in frames if kind == 1) == b"earlymore"
    assert b"".join(data for kind, data in frames if kind == 2) == b"e\n"
    assert api.get(f"/exec/{id}/json").json["ExitCode"] == 0


def test_events_name_the_command(docker: DockerCLI, box: str) -> None:
    docker("exec", box, "echo", "two words")
    time.sleep(1)  # the CLI asks in whole seconds
    told = docker.out("events", "--since", "10s", "--until", "0s", "--filter", f"container={box}")
    assert "exec_create: echo two words" in told
    assert "exec_start: echo two words" in told
    assert "exec_die" in told
