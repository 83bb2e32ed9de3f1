"""Each field of ContainerConfig and HealthConfig, as the container's process or its health shows it."""

from __future__ import annotations

import json
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from engine.asked import at, create, inspect, refusal, run, start
from harness import Client, Longshored

proves = pytest.mark.proves
SECOND = 1_000_000_000
MAC = "02:42:ac:11:77:99"


@pytest.mark.parametrize(
    ("body", "script", "wanted"),
    [
        pytest.param(
            {"Hostname": "box"},
            "hostname; cat /etc/hostname",
            "box\nbox",
            marks=proves("ContainerConfig.Hostname"),
        ),
        pytest.param(
            {"Hostname": "box", "Domainname": "example.org"},
            "cat /proc/sys/kernel/domainname; hostname -f; grep -c 'box.example.org box' /etc/hosts",
            "example.org\nbox.example.org\n1",
            marks=proves("ContainerConfig.Domainname"),
        ),
        pytest.param(
            {"User": "1000:10"},
            "id -u; id -g",
            "1000\n10",
            marks=proves("ContainerConfig.User"),
        ),
        pytest.param(
            {"Env": ["A=1", "HOSTNAME", "B="]},
            "env | grep -E '^(A|B|HOSTNAME)='",
            "A=1\nB=",
            marks=proves("ContainerConfig.Env"),
        ),
        pytest.param({"WorkingDir": "/www"}, "pwd", "/www", marks=proves("ContainerConfig.WorkingDir")),
        ({"WorkingDir": "//a/../www/"}, "pwd", "/www"),
        pytest.param({"Tty": True}, "tty", "/dev/pts/0", marks=proves("ContainerConfig.Tty")),
        pytest.param(
            {"NetworkDisabled": True},
            "ls /sys/class/net",
            "lo",
            marks=proves("ContainerConfig.NetworkDisabled"),
        ),
        pytest.param(
            {"MacAddress": MAC},
            "cat /sys/class/net/eth0/address",
            MAC,
            marks=proves("ContainerConfig.MacAddress"),
        ),
    ],
)
def test_what_the_process_finds(api: Client, body: dict[str, Any], script: str, wanted: str) -> None:
    assert run(api, script, body) == wanted


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ({"Cmd": ["echo", "a", "b"]}, "a b"),
        ({"Entrypoint": ["echo", "a"], "Cmd": ["b"]}, "a b"),
        ({"Entrypoint": "hostname", "Cmd": [], "Hostname": "alone"}, "alone"),
    ],
)
@proves("ContainerConfig.Cmd", "ContainerConfig.Entrypoint")
def test_what_is_run(daemon: Longshored, api: Client, words: dict[str, Any], wanted: str) -> None:
    id = start(api, words)
    api.post(f"/containers/{id}/wait").expect(200)
    assert daemon.docker.out("logs", id) == wanted


@proves("ContainerConfig.Image")
def test_the_image(api: Client) -> None:
    image = api.get("/images/busybox/json").json["Id"]
    for name in ("busybox", "busybox:latest", image, image.removeprefix("sha256:")[:12]):
        found = inspect(api, create(api, {"Image": name}).expect(201).json["Id"])
        assert (found["Image"], found["Config"]["Image"]) == (image, name)
    assert refusal(api, {"Image": "nosuch"}) == (404, "No such image: nosuch:latest")


@proves("ContainerConfig.Labels")
def test_labels(api: Client) -> None:
    id = create(api, {"Labels": {"a": "1", "b": ""}}).expect(201).json["Id"]
    create(api, {"Labels": {"a": "2"}}).expect(201)
    assert inspect(api, id)["Config"]["Labels"] == {"a": "1", "b": ""}
    (found,) = api.get("/containers/json", all=1, filters=json.dumps({"label": ["a=1"]})).json
    assert found["Id"] == id


@pytest.mark.parametrize(("version", "kept", "warned"), [("1.43", MAC, False), ("1.44", "", True)])
def test_the_containers_mac_address_moves_to_its_endpoint(
    daemon: Longshored, api: Client, version: str, kept: str, warned: bool
) -> None:
    client = Client(daemon.socket, version)
    made = create(client, {"MacAddress": MAC}).expect(201).json
    assert [("now deprecated" in warning) for warning in made["Warnings"]] == [True] * warned
    assert inspect(client, made["Id"])["Config"].get("MacAddress", "") == kept
    if warned:
        other = {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:ac:11:00:01"}}}}
        assert refusal(client, {"MacAddress": MAC, **other}) == (
            400,
            "the container-wide MAC address must match the endpoint-specific MAC address for the main "
            "network, or be left empty",
        )
    joined = {"MacAddress": MAC, "HostConfig": {"NetworkMode": "none"}}
    if not warned:
        assert refusal(client, joined) == (400, "conflicting options: mac-address and the network mode")


@proves("ContainerConfig.AttachStdin", "ContainerConfig.AttachStdout", only="record")
@proves("ContainerConfig.AttachStderr", only="record")
def test_what_clients_note_for_themselves(api: Client) -> None:
    for wish in (True, False):
        fields = dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr"), wish)
        found = inspect(api, create(api, fields).expect(201).json["Id"])
        assert {name: found["Config"][name] for name in fields} == fields


@proves("ContainerConfig.OnBuild")
def test_on_build_goes_into_images_that_are_committed(api: Client) -> None:
    id = create(api, {"OnBuild": ["RUN echo later"]}).expect(201).json["Id"]
    assert inspect(api, id)["Config"]["OnBuild"] == ["RUN echo later"]
    image = api.post("/commit", None, container=id, repo="built").expect(201).json["Id"]
    assert api.get(f"/images/{image}/json").json["Config"]["OnBuild"] == ["RUN echo later"]
    api.delete(f"/images/{image}").expect(200)


@pytest.mark.parametrize("once", [True, False])
@proves("ContainerConfig.OpenStdin", "ContainerConfig.StdinOnce")
def test_stdin(api: Client, once: bool) -> None:
    body = {"Cmd": ["sh", "-c", "cat; echo over"], "OpenStdin": True, "StdinOnce": once}
    id = create(api, body).expect(201).json["Id"]
    streams = {"stream": 1, "stdin": 1, "stdout": 1}
    first = api.hijack("POST", f"/containers/{id}/attach", **streams)
    api.post(f"/containers/{id}/start").expect(204)
    first.send(b"one\n")
    if not once:
        assert first.recv(12).endswith(b"one\n")
    first.close_write()
    if once:  # Its end is the container's.
        assert b"".join(data for _, data in first.frames()) == b"one\nover\n"
    else:  # Others may go on.
        second = api.hijack("POST", f"/containers/{id}/attach", **streams)
        second.send(b"two\n")
        assert second.recv(12).endswith(b"two\n")
        assert inspect(api, id)["State"]["Running"]
        second.close()
    first.close()


@proves("ContainerConfig.StopSignal")
def test_the_stop_signal(api: Client) -> None:
    script = "trap 'exit 3' USR1; trap '' TERM; touch /ready; while :; do sleep 0.05; done"
    id = start(api, {"Cmd": ["sh", "-c", script], "StopSignal": "SIGUSR1"})
    ready = Path(f"/proc/{inspect(api, id)['State']['Pid']}/root/ready")
    eventually(ready.exists)
    api.post(f"/containers/{id}/stop").expect(204)
    assert inspect(api, id)["State"]["ExitCode"] == 3


@proves("ContainerConfig.StopTimeout")
def test_the_time_to_stop(api: Client) -> None:
    script = "trap '' TERM; touch /ready; while :; do sleep 0.05; done"
    id = start(api, {"Cmd": ["sh", "-c", script], "StopTimeout": 1})
    eventually(Path(f"/proc/{inspect(api, id)['State']['Pid']}/root/ready").exists)
    begun = time.monotonic()
    api.post(f"/containers/{id}/stop").expect(204)
    assert 1 <= time.monotonic() - begun < 9  # ten seconds, were it not for the field
    assert inspect(api, id)["State"]["ExitCode"] == 137


def eventually(condition: Any, timeout: float = 15) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def health(api: Client, id: str) -> Any:
    return inspect(api, id)["State"].get("Health")


@pytest.mark.parametrize(
    ("test", "wanted"),
    [
        (["CMD", "echo", "$HOME"], (0, "$HOME\n")),
        (["CMD-SHELL", "echo $HOME"], (0, "/root\n")),
        (["CMD-SHELL", "exit 3"], (3, "")),
    ],
)
@proves("ContainerConfig.Healthcheck", "HealthConfig.Test")
def test_probes(api: Client, test: list[str], wanted: tuple[int, str]) -> None:
    id = start(api, {"Healthcheck": {"Test": test, "Interval": SECOND // 10}})
    eventually(lambda: health(api, id)["Log"])
    assert (health(api, id)["Log"][0]["ExitCode"], health(api, id)["Log"][0]["Output"]) == wanted


@pytest.mark.parametrize("check", [{"Test": ["NONE"]}, {"Test": []}, None])
def test_no_probes(api: Client, check: Any) -> None:
    assert health(api, start(api, {"Healthcheck": check})) is None


@proves("ContainerConfig.Shell")
def test_the_shell_of_probes(api: Client) -> None:
    check = {"Test": ["CMD-SHELL", "word"], "Interval": SECOND // 10}
    id = start(api, {"Shell": ["echo", "said"], "Healthcheck": check})
    eventually(lambda: health(api, id)["Log"])
    assert health(api, id)["Log"][0]["Output"] == "said word\n"


@proves("HealthConfig.Interval", "HealthConfig.Retries")
def test_how_often_and_how_long_a_container_may_fail(api: Client) -> None:
    id = start(api, {"Healthcheck": {"Test": ["CMD", "false"], "Interval": SECOND // 5, "Retries": 3}})
    seen = set()

    def unhealthy() -> bool:
        found = health(api, id)
        seen.add((found["Status"], found["FailingStreak"]))
        return bool(found["Status"] == "unhealthy")

    eventually(unhealthy)
    assert {status for status, streak in seen if streak < 3} == {"starting"}
    assert all(streak >= 3 for status, streak in seen if status == "unhealthy")
    log = [datetime.fromisoformat(entry["Start"]) for entry in health(api, id)["Log"]]
    assert all(0.2 <= (later - one).total_seconds() < 10 for one, later in pairwise(log))


@proves("HealthConfig.Timeout")
def test_how_long_a_probe_may_take(api: Client) -> None:
    check = {"Test": ["CMD", "sleep", "99"], "Interval": SECOND // 10, "Timeout": SECOND // 5}
    id = start(api, {"Healthcheck": check})
    eventually(lambda: health(api, id)["Log"])
    found = health(api, id)["Log"][0]
    assert (found["ExitCode"], found["Output"]) == (-1, "Health check exceeded timeout (200ms)")


@proves("HealthConfig.StartPeriod", "HealthConfig.StartInterval")
def test_failures_of_a_container_that_starts_do_not_count(api: Client) -> None:
    hour = 3600 * SECOND
    check = {"Test": ["CMD", "false"], "Interval": hour, "Retries": 1}
    id = start(api, {"Healthcheck": check | {"StartPeriod": hour, "StartInterval": SECOND // 20}})
    eventually(lambda: len(health(api, id)["Log"] or []) == 5)
    assert (health(api, id)["Status"], health(api, id)["FailingStreak"]) == ("starting", 0)


def test_clients_before_1_44_know_no_start_interval(daemon: Longshored, api: Client) -> None:
    check = {"Test": ["CMD", "true"], "StartInterval": SECOND}
    id = create(Client(daemon.socket, "1.43"), {"Healthcheck": check}).expect(201).json["Id"]
    assert "StartInterval" not in inspect(api, id)["Config"]["Healthcheck"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        ({"User": "nosuch"}, "unable to find user nosuch: no matching entries in passwd file"),
        ({"StopSignal": "BOGUS"}, "invalid signal: BOGUS"),
        ({"WorkingDir": "x"}, "the working directory 'x' is invalid, it needs to be an absolute path"),
        ({"ExposedPorts": {"x": {}}}, 'invalid port specification: "x"'),
        ({"Healthcheck": {"Retries": -1}}, "Retries in Healthcheck cannot be negative"),
        *(
            ({"Healthcheck": {field: 5}}, f"{field} in Healthcheck cannot be less than 1ms")
            for field in ("Interval", "Timeout", "StartPeriod", "StartInterval")
        ),
    ],
)
def test_configurations_that_cannot_be(api: Client, body: dict[str, Any], message: str) -> None:
    status, found = refusal(api, body)
    assert (status, found) == (500 if "User" in body else 400, message)


@proves("ContainerConfig.ArgsEscaped", only="record")
def test_windows_escapes_are_kept(api: Client) -> None:
    id = create(api, {"ArgsEscaped": True}).expect(201).json["Id"]
    assert at(inspect(api, id), "Config.ArgsEscaped") is True
