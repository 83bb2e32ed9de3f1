"""Containers outlive the daemon, and containerd; the next daemon takes them back."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine.survival import (
    api_of,
    containerd_pid,
    create,
    eventually,
    inspect,
    kill_containerd,
    left_over,
    links_of,
    logs,
    run,
    state,
)
from harness import Client, Longshored


@pytest.fixture(scope="module")
def daemon(root: None, machine: Any, busybox_archive: Path) -> Iterator[Longshored]:
    """A daemon for this module, which the tests kill and start again."""
    one = Longshored("--cgroup-parent", "/placeholder")
    one.flags = ("--cgroup-parent", one.cgroup)
    try:
        one.start()
        one.load(busybox_archive)
        yield one
        one.destroy()
    finally:
        one.sweep()


@pytest.fixture
def api(daemon: Longshored) -> Iterator[Client]:
    yield api_of(daemon)
    daemon.reset()
    eventually(lambda: not left_over(daemon))
    assert links_of(daemon) == []


def crash(daemon: Longshored) -> None:
    """Kill the daemon and start it again."""
    daemon.kill()
    daemon.start()


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return str(answer.read().decode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_containers_run_on_and_are_taken_back(daemon: Longshored, api: Client) -> None:
    plain = run(api, "plain")
    terminal = run(api, "terminal", "sh", Tty=True, OpenStdin=True)
    shareable = run(api, "shareable", host={"IpcMode": "shareable"})
    shared = {"NetworkMode": f"container:{plain}", "IpcMode": f"container:{shareable}"}
    joined = run(api, "joined", host=shared)
    paused = run(api, "paused")
    api.post(f"/containers/{paused}/pause").expect(204)
    everyone = [plain, terminal, shareable, joined, paused]
    before = {id: inspect(api, id) for id in everyone}
    crash(daemon)
    for id in everyone:
        after = inspect(api, id)
        assert after["State"] == before[id]["State"]
        assert after["NetworkSettings"] == before[id]["NetworkSettings"]
        assert Path(f"/proc/{after['State']['Pid']}").exists()
    assert state(api, paused)["Status"] == "paused"
    api.post(f"/containers/{paused}/unpause").expect(204)
    for id in everyone:
        api.post(f"/containers/{id}/stop", t=0).expect(204)
        assert state(api, id)["ExitCode"] == 137
    for id in (plain, shareable, joined):  # and they start again
        api.post(f"/containers/{id}/start").expect(204)


def test_published_ports_serve_without_the_daemon(daemon: Longshored, api: Client) -> None:
    port, echo = free_port(), free_port()
    run(
        api,
        "web",
        *("sh", "-c", "httpd -h /www; exec nc -ll -p 81 -e cat"),
        ExposedPorts={"80/tcp": {}, "81/tcp": {}},
        host={
            "PortBindings": {"80/tcp": [{"HostPort": str(port)}], "81/tcp": [{"HostPort": str(echo)}]},
        },
    )
    eventually(lambda: _answers(port))
    conversation = eventually(lambda: _connected(echo))
    with conversation:
        _say(conversation, b"before")
        daemon.kill()
        assert fetch(port) == "Hello from a container.\n"
        _say(conversation, b"without it")
        daemon.start()
        assert fetch(port) == "Hello from a container.\n"
        _say(conversation, b"after")
    other = create(api, "other", host={"PortBindings": {"80/tcp": [{"HostPort": str(port)}]}})
    answer = api.post(f"/containers/{other}/start").expect(500)
    assert "port is already allocated" in answer.message
    api.delete("/containers/web", force=1).expect(204)
    api.post(f"/containers/{other}/start").expect(204)


def _connected(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port), 5)
    except OSError:
        return None


def _say(conversation: socket.socket, words: bytes) -> None:
    conversation.sendall(words)
    heard = b""
    while len(heard) < len(words):
        piece = conversation.recv(100)
        assert piece, "it was hung up on"
        heard += piece
    assert heard == words


def _answers(port: int) -> bool:
    try:
        return bool(fetch(port))
    except OSError:
        return False


def test_no_line_of_the_log_is_lost_or_doubled(daemon: Longshored, api: Client) -> None:
    script = "i=0; while [ $i -lt 600 ]; do echo line $i; i=$((i+1)); usleep 5000; done; sleep 600"
    id = run(api, "writer", "sh", "-c", script)
    eventually(lambda: len(logs(api, id)) > 20)
    for _ in range(2):
        daemon.kill()
        time.sleep(0.5)
        daemon.start()
    eventually(lambda: logs(api, id)[-1:] == ["line 599"])
    assert logs(api, id) == [f"line {number}" for number in range(600)]


def test_attach_and_stdin_work_again(daemon: Longshored, api: Client) -> None:
    id = run(api, "echo", "cat", OpenStdin=True, AttachStdin=True, StdinOnce=True)
    crash(daemon)
    with daemon.docker.popen("attach", "echo", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        out, _ = client.communicate(b"after the crash\n", timeout=20)
    assert out == b"after the crash\n"
    eventually(lambda: state(api, id)["Status"] == "exited")
    assert state(api, id)["ExitCode"] == 0
    assert logs(api, id) == ["after the crash"]


def test_exit_codes_of_those_that_ended_meanwhile(daemon: Longshored, api: Client) -> None:
    by_itself = run(api, "by-itself", "sh", "-c", "sleep 0.5; exit 42")
    killed = run(api, "killed")
    removing = run(api, "removing", "sh", "-c", "sleep 0.5; exit 3", host={"AutoRemove": True})
    pid = state(api, killed)["Pid"]
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    time.sleep(1)
    daemon.start()
    ended = state(api, by_itself)
    assert (ended["Status"], ended["ExitCode"], ended["Pid"]) == ("exited", 42, 0)
    assert ended["FinishedAt"] > ended["StartedAt"]
    assert state(api, killed)["ExitCode"] == 137
    eventually(lambda: api.get(f"/containers/{removing}/json").status == 404)


def test_an_exit_that_nobody_knows_of_is_255(daemon: Longshored, api: Client) -> None:
    """As after a power cut: neither containerd nor a shim knows of the container."""
    id = run(api, "unknown")
    shim = int(Path(f"/proc/{state(api, id)['Pid']}/stat").read_text().rpartition(")")[2].split()[1])
    daemon.kill()
    kill_containerd(daemon)
    os.kill(shim, signal.SIGKILL)
    daemon.start()
    found = eventually(lambda: not state(api, id)["Running"] and state(api, id))
    assert found["Status"] == "exited"
    assert found["ExitCode"] in (137, 255)  # containerd cleans up after a dead shim, and calls that a kill
    api.post(f"/containers/{id}/start").expect(204)


def test_the_code_survives_a_crash_amid_the_exit(daemon: Longshored, api: Client) -> None:
    """A client that was told of an exit code finds the same one after a crash right behind that."""
    for round in range(5):
        id = run(api, f"told-{round}", "sh", "-c", "exit 7")
        answer = api.post(f"/containers/{id}/wait").expect(200).json
        daemon.kill()
        assert answer["StatusCode"] == 7
        daemon.start()
        assert (state(api, id)["Status"], state(api, id)["ExitCode"]) == ("exited", 7)


def test_containerd_may_die(daemon: Longshored, api: Client) -> None:
    id = run(api, "above", "sh", "-c", "while :; do echo alive; sleep 0.1; done")
    short = run(api, "short", "sh", "-c", "sleep 1; exit 5")
    pid = state(api, id)["Pid"]
    killed = kill_containerd(daemon)
    eventually(lambda: containerd_pid(daemon) != killed)
    assert api.post(f"/containers/{short}/wait").expect(200).json["StatusCode"] == 5
    assert state(api, id)["Pid"] == pid
    lines = len(logs(api, id))
    eventually(lambda: len(logs(api, id)) > lines)
    new = run(api, "new", "true")
    assert api.post(f"/containers/{new}/wait").expect(200).json["StatusCode"] == 0
    api.post(f"/containers/{id}/stop", t=0).expect(204)


def test_an_exit_while_containerd_is_dead_is_not_missed(daemon: Longshored, api: Client) -> None:
    ids = [run(api, f"short-{code}", "sh", "-c", f"sleep 1; exit {code}") for code in (3, 4)]
    pid = containerd_pid(daemon)
    os.kill(pid, signal.SIGSTOP)  # the exits happen, and cannot be told of
    time.sleep(1.5)
    os.kill(pid, signal.SIGKILL)
    for id, code in zip(ids, (3, 4), strict=True):
        assert api.post(f"/containers/{id}/wait").expect(200).json["StatusCode"] == code


def test_both_may_die_at_once(daemon: Longshored, api: Client) -> None:
    id = run(api, "both")
    ended = run(api, "ended", "sh", "-c", "sleep 0.5; exit 9")
    before = inspect(api, id)
    daemon.kill()
    kill_containerd(daemon)
    time.sleep(0.7)
    daemon.start()
    assert inspect(api, id)["State"] == before["State"]
    assert inspect(api, id)["NetworkSettings"] == before["NetworkSettings"]
    assert state(api, ended)["ExitCode"] == 9


def test_a_damaged_record_stops_nobody_else(daemon: Longshored, api: Client) -> None:
    good, bad, headless = run(api, "good"), run(api, "bad"), create(api, "headless")
    record = daemon.data_root / "containers" / bad / "config.v2.json"
    content = record.read_bytes()
    mounts = daemon.data_root / "image/overlay2/layerdb/mounts"
    mount_id = (mounts / headless / "mount-id").read_text()
    pid = state(api, bad)["Pid"]
    daemon.kill()
    record.write_bytes(content[:100])
    (mounts / headless / "mount-id").write_text("")
    daemon.start()
    assert state(api, good)["Running"]
    assert api.get(f"/containers/{bad}/json").status == 404
    assert Path(f"/proc/{pid}").exists(), "a container with a damaged record was killed"
    assert api.post(f"/containers/{headless}/start").status in (404, 500)
    api.delete(f"/containers/{headless}").expect(204)
    daemon.kill()
    record.write_bytes(content)
    daemon.start()
    assert state(api, bad)["Pid"] == pid
    assert not (daemon.data_root / "overlay2" / mount_id).exists()  # nobody's, since its record is gone


def test_odd_records_of_another_daemon_stop_nobody_else(daemon: Longshored, api: Client) -> None:
    """As if dockerd had left the containers: of their networks there are its records alone."""
    names = ("good", "ports", "address", "sandbox")
    ids = {name: run(api, name, "sh", "-c", "httpd -f -h /etc") for name in names}
    pids = {name: state(api, id)["Pid"] for name, id in ids.items()}
    daemon.kill()
    for path in (daemon.data_root / "network/longshore").glob("sandbox-*.json"):
        path.unlink()
    for name, id in ids.items():
        path = daemon.data_root / "containers" / id / "config.v2.json"
        content = json.loads(path.read_bytes())
        settings = content["NetworkSettings"]
        if name == "ports":
            settings["Ports"] = {
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "99999999"}],
                "\u00b2/tcp": [{"HostIp": "", "HostPort": "\u00b2"}],
                "81/tcp": [{"HostIp": "::1 }; flush ruleset", "HostPort": "8099"}],
            }
        elif name == "address":
            settings["Networks"]["bridge"]["IPAddress"] = "172.17.0.9 }; flush ruleset"
        elif name == "sandbox":
            settings["SandboxID"] = settings["SandboxID"][:12] + "/../../x"
        path.write_text(json.dumps(content))
    daemon.start()
    assert {name: state(api, id)["Pid"] for name, id in ids.items()} == pids
    for name in ("good", "ports"):  # These are managed as before.
        address = inspect(api, ids[name])["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        with urllib.request.urlopen(f"http://{address}/hostname", timeout=20) as answer:
            assert answer.status == 200
        api.post("/networks/bridge/disconnect", {"Container": name}).expect(200)


def test_a_create_that_was_cut_off_goes(daemon: Longshored, api: Client) -> None:
    """The layer was made, the record was not."""
    id = create(api, "cut")
    daemon.kill()
    (daemon.data_root / "containers" / id / "config.v2.json").unlink()
    daemon.start()
    assert api.get(f"/containers/{id}/json").status == 404
    assert left_over(daemon) == []


def test_a_removal_that_was_cut_off_goes_on(daemon: Longshored, api: Client) -> None:
    id = create(api, "half")
    daemon.kill()
    record = daemon.data_root / "containers" / id / "config.v2.json"
    content = json.loads(record.read_bytes())
    content["State"]["Dead"] = True
    record.write_text(json.dumps(content))
    record.with_name("hostconfig.json").unlink()
    daemon.start()
    assert api.get(f"/containers/{id}/json").status == 404
    assert left_over(daemon) == []


def test_a_refused_removal_is_not_remembered(daemon: Longshored, api: Client) -> None:
    """`docker rm` of a running container is refused, whatever happens to the daemon afterwards."""
    id = run(api, "stays")
    api.delete(f"/containers/{id}").expect(409)
    crash(daemon)
    assert state(api, id)["Running"]
