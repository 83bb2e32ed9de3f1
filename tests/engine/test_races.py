"""Several clients at once want different things of one container: each gets an answer that makes sense."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from engine.survival import api_of, create, eventually, inspect, run, state
from harness import Client, Longshored, Response

ROUNDS = 25


@pytest.fixture(scope="module")
def daemon(root: None, machine: Any, busybox_archive: Any) -> Iterator[Longshored]:
    one = Longshored()
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


def at_once(daemon: Longshored, *requests: Callable[[Client], Response]) -> list[int]:
    """Make the requests from a thread each, at the same moment; their statuses, in the order given."""
    barrier = threading.Barrier(len(requests))
    statuses = [0] * len(requests)

    def make(number: int) -> None:
        client = api_of(daemon)
        barrier.wait()
        statuses[number] = requests[number](client).status

    threads = [threading.Thread(target=make, args=(number,)) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def post(id: str, verb: str, **query: Any) -> Callable[[Client], Response]:
    return lambda client: client.post(f"/containers/{id}/{verb}", **query)


def remove(id: str, **query: Any) -> Callable[[Client], Response]:
    return lambda client: client.delete(f"/containers/{id}", **query)


def test_of_two_starts_one_starts(daemon: Longshored, api: Client) -> None:
    for round in range(ROUNDS):
        id = create(api, f"start-{round}")
        assert sorted(at_once(daemon, post(id, "start"), post(id, "start"))) == [204, 304]
        api.delete(f"/containers/{id}", force=1).expect(204)


def test_of_two_removals_one_removes(daemon: Longshored, api: Client) -> None:
    for round in range(ROUNDS):
        id = run(api, f"rm-{round}")
        statuses = at_once(daemon, remove(id, force=1), remove(id, force=1))
        assert sorted(statuses) in ([204, 404], [204, 409])
        assert api.get(f"/containers/{id}/json").status == 404


def test_start_against_forced_removal(daemon: Longshored, api: Client) -> None:
    for round in range(ROUNDS):
        id = create(api, f"start-rm-{round}")
        started, removed = at_once(daemon, post(id, "start"), remove(id, force=1))
        assert started in (204, 404, 409)
        assert removed == 204
        assert api.get(f"/containers/{id}/json").status == 404


def test_start_against_removal(daemon: Longshored, api: Client) -> None:
    for round in range(ROUNDS):
        id = create(api, f"start-plain-rm-{round}")
        pair = at_once(daemon, post(id, "start"), remove(id))
        assert pair in ([204, 409], [409, 204], [404, 204])
        if pair == [204, 409]:
            assert state(api, id)["Running"]
            api.delete(f"/containers/{id}", force=1).expect(204)


def test_stop_against_kill_and_restart(daemon: Longshored, api: Client) -> None:
    id = run(api, "contested")
    for _ in range(ROUNDS // 2):
        stop, kill, restart = at_once(
            daemon, post(id, "stop", t=0), post(id, "kill"), post(id, "restart", t=0)
        )
        assert (stop in (204, 304), kill in (204, 409), restart) == (True, True, 204)
        eventually(lambda: state(api, id)["Status"] in ("running", "exited"))
        assert api.post(f"/containers/{id}/start").status in (204, 304)
        assert state(api, id)["Running"]


def test_one_name_for_two(daemon: Longshored, api: Client) -> None:
    for round in range(ROUNDS):
        ids = [create(api, f"{side}-{round}") for side in ("left", "right")]
        statuses = at_once(daemon, *(post(id, "rename", name=f"wanted-{round}") for id in ids))
        assert sorted(statuses) == [204, 409]
        winner = ids[statuses.index(204)]
        assert inspect(api, f"wanted-{round}")["Id"] == winner
        for id in ids:
            api.delete(f"/containers/{id}").expect(204)


def test_of_creates_with_one_name_one_creates(daemon: Longshored, api: Client) -> None:
    body = {"Image": "busybox", "Cmd": ["true"]}

    def named(name: str) -> Callable[[Client], Response]:
        return lambda client: client.post("/containers/create", body, name=name)

    for round in range(ROUNDS):
        assert sorted(at_once(daemon, *[named(f"one-{round}")] * 3)) == [201, 409, 409]
        api.delete(f"/containers/one-{round}").expect(204)


def test_waits_end_with_what_they_wait_for(daemon: Longshored, api: Client) -> None:
    for round in range(ROUNDS):
        id = create(api, f"waited-{round}", "sh", "-c", "exit 4", host={"AutoRemove": True})
        with ThreadPoolExecutor() as clients:
            waits = [
                clients.submit(api_of(daemon).post, f"/containers/{id}/wait", condition=condition)
                for condition in ("next-exit", "removed")
            ]
            time.sleep(0.05)
            api.post(f"/containers/{id}/start").expect(204)
            assert [wait.result(20).json["StatusCode"] for wait in waits] == [4, 4]
        assert api.get(f"/containers/{id}/json").status == 404


def test_a_client_that_leaves_does_not_break_off_its_start(daemon: Longshored, api: Client) -> None:
    for round in range(10):
        id = create(api, f"left-{round}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(daemon.socket))
            client.sendall(f"POST /v1.50/containers/{id}/start HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        eventually(lambda id=id: state(api, id)["Running"])
        api.delete(f"/containers/{id}", force=1).expect(204)
