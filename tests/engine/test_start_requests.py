"""POST /containers/{id}/start: statuses, bodies, parameters, and what each state makes of it."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Dockerd, Longshored

MISSING = "0" * 64
BODY_MESSAGE = (
    "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
)


def create(api: Client, name: str, **config: Any) -> str:
    body = {"Image": "busybox", "Cmd": ["sleep", "600"], **config}
    return str(api.post("/containers/create", body, name=name).expect(201).json["Id"])


def state(api: Client, id: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/containers/{id}/json").expect(200).json["State"]
    return found


def test_starts_once_and_then_is_not_modified(api: Client) -> None:
    id = create(api, "once")
    assert api.post(f"/containers/{id}/start").expect(204).body == b""
    assert api.post(f"/containers/{id}/start").expect(304).body == b""
    assert api.post("/containers/once/start").status == 304
    found = state(api, id)
    assert (found["Status"], found["Running"], found["ExitCode"], found["Error"]) == ("running", True, 0, "")
    assert Path(f"/proc/{found['Pid']}").exists()


def test_start_of_nothing_is_not_found(api: Client) -> None:
    answer = api.post(f"/containers/{MISSING}/start").expect(404)
    assert answer.message == f"No such container: {MISSING}"


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"{    }"])
def test_small_bodies_are_ignored(api: Client, body: bytes) -> None:
    id = create(api, "small")
    api.request("POST", f"/containers/{id}/start", body, headers={"Content-Type": "application/json"}).expect(
        204
    )


@pytest.mark.parametrize("version", ["1.24", "1.41", "1.50"])
def test_a_body_with_content_is_refused(daemon: Longshored, api: Client, version: str) -> None:
    id = create(api, "body")
    answer = Client(daemon.socket, version).post(f"/containers/{id}/start", {"Binds": ["/tmp:/tmp"]})
    assert answer.expect(400).message == BODY_MESSAGE
    assert state(api, id)["Status"] == "created"


def test_a_body_of_unknown_length_is_refused(daemon: Longshored, api: Client) -> None:
    id = create(api, "chunked")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(daemon.socket))
        sock.sendall(
            f"POST /v1.41/containers/{id}/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\n".encode()
        )
        answer = b""
        while chunk := sock.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert BODY_MESSAGE.encode() in answer


def test_a_paused_container_is_told_apart(api: Client) -> None:
    id = create(api, "paused")
    api.post(f"/containers/{id}/start").expect(204)
    api.post(f"/containers/{id}/pause").expect(204)
    answer = api.post(f"/containers/{id}/start").expect(409)
    assert answer.message == "cannot start a paused container, try unpause instead"
    api.post(f"/containers/{id}/unpause").expect(204)
    api.post(f"/containers/{id}/start").expect(304)


@pytest.mark.parametrize("query", [{"checkpoint": "c1"}, {"checkpoint": "c1", "checkpoint-dir": "/tmp"}])
def test_checkpoints_need_an_experimental_daemon(api: Client, query: dict[str, str]) -> None:
    id = create(api, "restored")
    answer = api.post(f"/containers/{id}/start", None, **query).expect(400)
    assert answer.message == "checkpoint is only supported in experimental mode"
    assert state(api, id)["Status"] == "created"


def test_a_checkpoint_directory_alone_means_nothing(api: Client) -> None:
    id = create(api, "plain")
    api.post(f"/containers/{id}/start", None, **{"checkpoint-dir": "/nonexistent"}).expect(204)


def test_a_container_that_is_being_removed_cannot_be_started(daemon: Longshored, api: Client) -> None:
    from concurrent.futures import ThreadPoolExecutor

    script = 'trap "" TERM; for i in $(seq 500); do mkdir -p /d/$i; touch /d/$i/$i; done; sleep 600'
    id = create(api, "leaving", Cmd=["sh", "-c", script])
    api.post(f"/containers/{id}/start").expect(204)
    time.sleep(1)
    with ThreadPoolExecutor(2) as pool:
        removal = pool.submit(api.delete, f"/containers/{id}", force=1)
        seen = set()
        while not removal.done():
            answer = api.post(f"/containers/{id}/start")
            seen.add(answer.status)
            if answer.status == 409:
                assert answer.message == "container is marked for removal and cannot be started"
            elif answer.status == 404:
                assert answer.message == f"No such container: {id}"
        assert removal.result().status == 204
    assert seen <= {304, 404, 409}
    api.post(f"/containers/{id}/start").expect(404)


def test_settings_are_verified_again_at_the_start(busybox_archive: Path) -> None:
    """A runtime that was there at creation may have been taken out of the configuration since."""
    daemon = Longshored("--add-runtime", "other=runc")
    try:
        daemon.start()
        daemon.load(busybox_archive)
        api = Client(daemon.socket, "1.50")
        id = create(api, "adapted", HostConfig={"Runtime": "other"})
        api.post(f"/containers/{id}/start").expect(204)
        api.post(f"/containers/{id}/stop", None, t=0).expect(204)
        daemon.stop()
        daemon.flags = ()
        daemon.start()
        answer = api.post(f"/containers/{id}/start").expect(400)
        assert answer.message == "unknown or invalid runtime name: other"
    finally:
        daemon.destroy()


def test_checkpoint_messages_of_an_experimental_daemon(busybox_archive: Path) -> None:
    daemon = Longshored("--experimental")
    try:
        daemon.start()
        daemon.load(busybox_archive)
        api = Client(daemon.socket, "1.50")
        id = create(api, "again")
        answer = api.post(f"/containers/{id}/start", None, checkpoint="c1").expect(404)
        assert answer.message == "checkpoint c1 does not exist for container again"
        answer = api.post(f"/containers/{id}/start", None, checkpoint="../x").expect(400)
        assert answer.message.startswith("invalid checkpoint ID (../x)")
        file = daemon.data_root / "containers" / id / "checkpoints" / "c2"
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
        answer = api.post(f"/containers/{id}/start", None, checkpoint="c2").expect(500)
        assert answer.message == f"{file} exists and is not a directory"
        assert state(api, id)["Running"] is False
        api.post(f"/containers/{id}/start").expect(204)
    finally:
        daemon.destroy()


@pytest.mark.parametrize(
    ("host_config", "status"),
    [
        ({"Links": ["nosuch:x"]}, 400),
        ({"VolumesFrom": ["nosuch"]}, 400),
        ({"PidMode": "container:nosuch"}, 400),
        ({"IpcMode": "container:nosuch"}, 400),
        ({"NetworkMode": "container:nosuch"}, 201),
        ({"Binds": ["v1:/x", "v2:/x"]}, 400),
        ({"Binds": ["/tmp:/x"], "Tmpfs": {"/x": ""}}, 400),
        ({"PortBindings": {"80/tcp": [{"HostPort": "abc"}]}}, 400),
        ({"RestartPolicy": {"Name": "always"}, "AutoRemove": True}, 400),
        ({"Mounts": [{"Type": "bind", "Source": "/nonexist", "Target": "/x"}]}, 400),
    ],
)
def test_creation_answers_as_dockerd(
    api: Client, oracle: Dockerd, host_config: dict[str, Any], status: int
) -> None:
    body = {"Image": "busybox", "HostConfig": host_config}
    ours = api.post("/containers/create", body).expect(status)
    theirs = Client(oracle.socket, "1.41").post("/containers/create", body).expect(status)
    if status >= 400:
        assert ours.message == theirs.message
    oracle.reset()
