"""docker run, attach, start -ai and logs: every byte both ways, and how each of them ends."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Busybox, Client, DockerCLI, Layer, Longshored, Terminal, docker_archive
from harness.http import split_frames


def run_bytes(
    docker: DockerCLI, *arguments: str, input: bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [docker.program, *arguments], input=input, capture_output=True, env=docker.env, timeout=timeout
    )


def eventually(condition: Callable[[], bool], timeout: float = 10) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def terminal(docker: DockerCLI, *arguments: str, columns: int = 100, rows: int = 30) -> Terminal:
    return Terminal([docker.program, *arguments], docker.env, columns, rows)


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_the_clis(docker: DockerCLI, code: int) -> None:
    assert docker("run", "--rm", "busybox", "sh", "-c", f"exit {code}", check=False).returncode == code


def test_a_signal_is_128_and_its_number(docker: DockerCLI) -> None:
    assert docker("run", "--rm", "busybox", "sh", "-c", "kill -9 $$", check=False).returncode in (0, 137)
    assert docker("run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$", check=False).returncode == 137


def test_stdout_and_stderr_are_kept_apart(docker: DockerCLI) -> None:
    done = docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_without_i_stdin_is_empty(docker: DockerCLI) -> None:
    assert docker("run", "--rm", "busybox", "cat", input="never seen").stdout == ""


@pytest.mark.proves("ContainerConfig.OpenStdin", "ContainerConfig.StdinOnce")
def test_with_i_stdin_ends_where_the_clients_does(docker: DockerCLI) -> None:
    assert docker("run", "--rm", "-i", "busybox", "cat", input="x\n").stdout == "x\n"
    counted = docker("run", "--rm", "-i", "busybox", "sh", "-c", "cat >/dev/null; echo over", input="x")
    assert counted.stdout == "over\n"


def test_an_immediate_end_of_stdin(docker: DockerCLI) -> None:
    for _ in range(5):
        assert docker("run", "--rm", "-i", "busybox", "wc", "-c", input="").stdout.strip() == "0"


def test_fifty_megabytes_both_ways(docker: DockerCLI) -> None:
    data = random.Random(1).randbytes(1 << 20) * 50
    done = run_bytes(docker, "run", "--rm", "-i", "--log-driver", "none", "busybox", "cat", input=data)
    assert len(done.stdout) == len(data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_binary_output_with_the_default_log(docker: DockerCLI) -> None:
    data = bytes(range(256)) * 4096
    done = run_bytes(docker, "run", "--name", "binary", "-i", "busybox", "cat", input=data)
    assert done.stdout == data


def test_much_output_comes_whole_and_in_order(docker: DockerCLI) -> None:
    done = docker("run", "--rm", "busybox", "seq", "200000")
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 200001))


def test_a_reader_that_leaves_does_not_stop_the_container(docker: DockerCLI, tmp_path: Path) -> None:
    process = docker.popen(
        "run", "--name", "left", "-v", f"{tmp_path}:/x", "busybox",
        "sh", "-c", "yes | head -c 10000000; sleep 1; touch /x/end",
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.read(100)
    process.kill()
    process.stdout.close()
    process.wait()
    assert docker.out("wait", "left") == "0"
    assert (tmp_path / "end").exists()


def test_a_terminal_joins_both_streams(docker: DockerCLI) -> None:
    done = run_bytes(docker, "run", "--rm", "-t", "busybox", "sh", "-c", "tty; echo err >&2")
    assert done.stdout == b"/dev/pts/0\r\nerr\r\n"
    assert done.stderr == b""


@pytest.mark.proves("HostConfig.ConsoleSize", "ContainerConfig.Tty")
def test_a_terminal_has_the_clients_size_and_follows_it(docker: DockerCLI) -> None:
    script = 'trap "stty size" WINCH; stty size; echo ready; while :; do sleep 0.1; done'
    with terminal(docker, "run", "--rm", "-it", "busybox", "sh", "-c", script, columns=90, rows=25) as screen:
        screen.wait_for("ready")
        screen.wait_for("25 90")
        screen.resize(70, 20)
        screen.wait_for("20 70")


def test_an_interactive_shell(docker: DockerCLI) -> None:
    with terminal(docker, "run", "--rm", "-it", "busybox", "sh") as screen:
        screen.wait_for("/ #")
        screen.type("echo $((6*7)); stty -a | grep -c echo\n")
        screen.wait_for("42")
        screen.type("sleep 100\n")
        time.sleep(0.3)
        screen.press("C-c")
        screen.type("exit 7\n")
        assert screen.wait_exit() == 7


def test_the_detach_keys(docker: DockerCLI) -> None:
    with terminal(docker, "run", "-it", "--name", "detached", "busybox", "sh") as screen:
        screen.wait_for("/ #")
        screen.type("X=kept\n")
        screen.press("C-p", "C-q")
        assert screen.wait_exit() == 0
    assert docker.out("inspect", "-f", "{{.State.Running}}", "detached") == "true"
    with terminal(docker, "attach", "--detach-keys", "ctrl-a,d", "detached") as screen:
        screen.type("echo $X\n")
        screen.wait_for("kept")
        screen.press("C-a", "d")
        screen.wait_exit()
        assert "read escape sequence" in screen.screen()
    assert docker.out("inspect", "-f", "{{.State.Running}}", "detached") == "true"


def test_attach_and_start_ai_after_an_exit(docker: DockerCLI) -> None:
    docker("create", "-i", "--name", "again", "busybox", "sh", "-c", "read x; echo got $x; exit 3")
    for word in ("one", "two"):
        done = docker("start", "-ai", "again", input=f"{word}\n", check=False)
        assert (done.returncode, done.stdout) == (3, f"got {word}\n")


def test_start_a_shows_output_from_the_beginning(docker: DockerCLI) -> None:
    docker("create", "--name", "early", "busybox", "sh", "-c", "echo first; exit 5")
    done = docker("start", "-a", "early", check=False)
    assert (done.returncode, done.stdout) == (5, "first\n")


def test_several_attached_clients_see_the_same(docker: DockerCLI) -> None:
    script = "read x; echo $x; echo $x >&2; exit 9"
    docker("run", "-d", "-i", "--name", "shared", "busybox", "sh", "-c", script)
    watchers = [
        docker.popen("attach", "--no-stdin", "shared", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    time.sleep(1)
    writer = docker.popen(
        "attach", "shared", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdin is not None
    os.write(writer.stdin.fileno(), b"word\n")  # and left open: its end would end this client's attach
    for client in (*watchers, writer):
        assert client.wait(20) == 9
        assert client.stdout is not None
        assert client.stderr is not None
        assert (client.stdout.read(), client.stderr.read()) == (b"word\n", b"word\n")
    writer.stdin.close()


def test_signals_reach_the_container_through_an_attached_cli(docker: DockerCLI) -> None:
    script = 'trap "echo told; exit 4" TERM; echo ready; while :; do sleep 0.1; done'
    docker("run", "-d", "--name", "told", "busybox", "sh", "-c", script)
    process = docker.popen("attach", "told", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert b"told" in out
    assert process.returncode == 4


def test_without_sig_proxy_the_container_goes_on(docker: DockerCLI) -> None:
    docker("run", "-d", "--name", "untold", "busybox", "sleep", "600")
    process = docker.popen("attach", "--sig-proxy=false", "untold", stderr=subprocess.DEVNULL)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.kill()
    process.wait()
    assert docker.out("inspect", "-f", "{{.State.Running}}", "untold") == "true"


def test_restart_while_attached_ends_the_attach(docker: DockerCLI) -> None:
    docker("run", "-d", "--name", "again", "busybox", "sh", "-c", "echo up; sleep 600")
    process = docker.popen("attach", "again", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    time.sleep(1)
    docker("restart", "-t", "0", "again")
    process.communicate(timeout=20)
    assert docker.out("logs", "again") == "up\nup"


def test_attach_to_what_does_not_run_or_is_paused(docker: DockerCLI) -> None:
    docker("run", "-d", "--name", "held", "busybox", "sleep", "600")
    docker("pause", "held")
    assert "cannot attach to a paused container" in docker("attach", "held", check=False).stderr
    docker("unpause", "held")
    docker("kill", "held")
    assert "cannot attach to a stopped container" in docker("attach", "held", check=False).stderr


def test_logs_say_what_was_written(docker: DockerCLI) -> None:
    docker(
        "run", "--name", "log", "--label", "a=b", "--log-opt", "labels=a", "busybox",
        "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done; echo e >&2",
    )  # fmt: skip
    done = docker("logs", "log")
    assert (done.stdout, done.stderr) == ("1\n2\n3\n4\n5\n", "e\n")
    assert docker("logs", "--tail", "2", "log").stdout == "5\n"
    assert docker("logs", "-n", "0", "log").stdout == ""
    stamped = docker("logs", "-t", "log").stdout.splitlines()
    stamps = [line.split()[0] for line in stamped]
    assert stamps == sorted(stamps)
    assert all(stamp.endswith("Z") and len(stamp) == 30 for stamp in stamps)
    assert docker("logs", "--details", "log").stdout.splitlines()[0] == "a=b 1"
    assert docker("logs", "--since", stamps[3], "log").stdout == "4\n5\n"
    assert docker("logs", "--until", stamps[1], "log").stdout == "1\n2\n"
    assert docker("logs", "--since", "1h", "log").stdout == "1\n2\n3\n4\n5\n"
    assert docker("logs", "--until", "1h", "log").stdout == ""


def test_logs_follow_until_the_exit(docker: DockerCLI) -> None:
    docker("run", "-d", "--name", "log", "busybox", "sh", "-c", "echo a; sleep 1; echo b; sleep 0.5; echo c")
    began = time.monotonic()
    assert docker("logs", "-f", "log").stdout == "a\nb\nc\n"
    assert time.monotonic() - began < 10
    assert docker("logs", "-f", "--tail", "1", "log").stdout == "c\n"


def test_logs_follow_goes_on_with_a_restarted_run(docker: DockerCLI) -> None:
    docker("run", "-d", "--name", "log", "busybox", "sh", "-c", "echo run; sleep 1")
    docker("wait", "log")
    docker("start", "log")
    assert docker("logs", "-f", "log").stdout == "run\nrun\n"


@pytest.mark.parametrize(("condition", "code"), [("not-running", 6), ("next-exit", 6), ("removed", 6)])
@pytest.mark.proves("HostConfig.AutoRemove")
def test_wait_conditions(daemon: Longshored, api: Client, condition: str, code: int) -> None:
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "sleep 1; exit 6"],
        "HostConfig": {"AutoRemove": condition == "removed"},
    }
    id = api.post("/containers/create", body).expect(201).json["Id"]
    with api.stream("POST", f"/containers/{id}/wait", condition=condition) as answer:
        assert answer.status == 200
        if condition == "not-running":  # met at once by one that was never started
            assert b'"StatusCode":0' in answer.read()
            api.post(f"/containers/{id}/start").expect(204)
            assert api.post(f"/containers/{id}/wait").json["StatusCode"] == code
            return
        api.post(f"/containers/{id}/start").expect(204)
        assert f'"StatusCode":{code}'.encode() in answer.read()
    assert api.get(f"/containers/{id}/json").status == (404 if condition == "removed" else 200)


def test_wait_refuses_other_conditions(api: Client) -> None:
    id = api.post("/containers/create", {"Image": "busybox"}).json["Id"]
    answer = api.post(f"/containers/{id}/wait", None, condition="bogus").expect(400)
    assert answer.message == 'invalid condition: "bogus"'
    assert api.post("/containers/nosuch/wait").expect(404).message == "No such container: nosuch"


def test_attach_replays_the_log_and_goes_on(api: Client) -> None:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "echo old; sleep 1; echo new"]}
    id = api.post("/containers/create", body).json["Id"]
    api.post(f"/containers/{id}/start").expect(204)
    time.sleep(0.5)
    attached = api.hijack("POST", f"/containers/{id}/attach", logs=1, stream=1, stdout=1, stderr=1)
    assert attached.status == 101
    frames = split_frames(attached.read_all())
    attached.close()
    assert b"".join(payload for _, payload in frames) == b"old\nnew\n"


def test_the_events_of_a_run(docker: DockerCLI) -> None:
    since = f"{time.time():.9f}"
    docker("run", "--rm", "--name", "seen", "busybox", "sh", "-c", "exit 2", check=False)
    assert eventually(lambda: docker.out("ps", "-aq") == "")
    until = f"{time.time() + 0.2:.9f}"
    lines = docker.out(
        "events", "--since", since, "--until", until,
        "--format", '{{.Type}} {{.Action}} {{index .Actor.Attributes "exitCode"}}',
    ).splitlines()  # fmt: skip
    assert [line.strip() for line in lines] == [
        "container create",
        "container attach",
        "network connect",
        "container start",
        "network disconnect",
        "container die 2",
        "container destroy",
    ]


def test_resize_of_a_stopped_container_is_a_conflict(api: Client) -> None:
    id = api.post("/containers/create", {"Image": "busybox", "Tty": True}).json["Id"]
    answer = api.post(f"/containers/{id}/resize", None, h=10, w=10).expect(409)
    assert answer.message == f"container {id} is not running"
    api.post(f"/containers/{id}/start").expect(204)
    api.post(f"/containers/{id}/resize", None, h=10, w=10).expect(200)
    api.post(f"/containers/{id}/resize", None, h="x", w=10).expect(400)


def test_the_sdk_runs_containers(sdk: object) -> None:
    containers = sdk.containers  # type: ignore[attr-defined]
    assert containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
    made = containers.run("busybox", ["cat"], stdin_open=True, detach=True, tty=False)
    sock = made.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    os.write(sock.fileno(), b"through\n")
    head = os.read(sock.fileno(), 8)
    assert (head[0], int.from_bytes(head[4:], "big")) == (1, 8)
    assert os.read(sock.fileno(), 8) == b"through\n"
    sock.close()
    made.kill()
    assert made.wait()["StatusCode"] == 137
    assert made.logs() == b"through\n"


def test_a_hundred_and_twenty_layers(daemon: Longshored, docker: DockerCLI, tmp_path: Path) -> None:
    layers = [Busybox.layer()] + [
        Layer({f"layers/{number}": f"{number}\n".encode()}) for number in range(119)
    ]
    docker_archive(tmp_path / "deep.tar", layers, ["deep:latest"], {"Cmd": ["sh"]})
    daemon.load(tmp_path / "deep.tar")
    try:
        script = "cat /layers/* | sort -n | tail -1; ls /layers | wc -l"
        assert docker.out("run", "--rm", "deep", "sh", "-c", script) == "118\n119"
    finally:
        docker("rmi", "deep")
