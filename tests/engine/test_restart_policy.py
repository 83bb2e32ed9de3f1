"""Restart policies: after an exit, after a stop, after the daemon's own restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from engine.survival import api_of, create, eventually, inspect, run, state
from harness import Client, Longshored


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


def policy(name: str, most: int = 0) -> dict[str, Any]:
    return {"RestartPolicy": {"Name": name, "MaximumRetryCount": most}}


@pytest.mark.proves("HostConfig.RestartPolicy.Name", "HostConfig.RestartPolicy.MaximumRetryCount")
def test_on_failure_gives_up_after_its_retries(api: Client) -> None:
    id = run(api, "failing", "sh", "-c", "exit 3", host=policy("on-failure", 3))
    eventually(lambda: state(api, id)["Status"] == "exited")
    assert inspect(api, id)["RestartCount"] == 3
    assert state(api, id)["ExitCode"] == 3
    api.post(f"/containers/{id}/start").expect(204)  # which counts anew
    eventually(lambda: state(api, id)["Status"] == "exited")
    assert inspect(api, id)["RestartCount"] == 3


def test_on_failure_leaves_success_alone(api: Client) -> None:
    id = run(api, "succeeding", "true", host=policy("on-failure"))
    api.post(f"/containers/{id}/wait").expect(200)
    time.sleep(0.3)
    assert (state(api, id)["Status"], inspect(api, id)["RestartCount"]) == ("exited", 0)


def test_the_delay_doubles(api: Client) -> None:
    id = run(api, "looping", "false", host=policy("always"))
    begun = time.monotonic()
    eventually(lambda: inspect(api, id)["RestartCount"] >= 5)
    assert time.monotonic() - begun > 0.1 + 0.2 + 0.4 + 0.8
    eventually(lambda: state(api, id)["Restarting"])
    api.post(f"/containers/{id}/start").expect(304)
    api.delete(f"/containers/{id}").expect(409)
    api.post(f"/containers/{id}/stop").expect(204)
    assert state(api, id)["Status"] == "exited"
    count = inspect(api, id)["RestartCount"]
    time.sleep(0.5)
    assert inspect(api, id)["RestartCount"] == count


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_who_is_stopped_stays_stopped(api: Client, how: str) -> None:
    id = run(api, f"stopped-by-{how}", host=policy("always"))
    api.post(f"/containers/{id}/{how}").expect(204)
    time.sleep(0.4)
    assert state(api, id)["Status"] == "exited"


def test_a_restart_is_told_of(api: Client) -> None:
    id = run(api, "restarted", "sh", "-c", "sleep 0.3; exit 1", host=policy("on-failure", 1))
    api.post(f"/containers/{id}/wait", condition="next-exit").expect(200)
    assert api.post(f"/containers/{id}/wait").expect(200).json["StatusCode"] == 1
    until = int(time.time()) + 1
    filters = f'{{"container":["{id}"]}}'
    events = api.get("/events", since=0, until=until, filters=filters).expect(200).lines
    actions = [event["Action"] for event in events if event["Action"] in ("start", "die")]
    assert actions == ["start", "die", "start", "die"]


@pytest.mark.parametrize("crash", [False, True], ids=["sigterm", "sigkill"])
@pytest.mark.proves("HostConfig.RestartPolicy.Name")
def test_after_the_daemons_own_restart(daemon: Longshored, api: Client, crash: bool) -> None:
    ids = {name: run(api, name, host=policy(name)) for name in ("always", "unless-stopped", "no")}
    stopped = {name: run(api, f"{name}-stopped", host=policy(name)) for name in ("always", "unless-stopped")}
    made = create(api, "made", host=policy("always"))
    joined = run(api, "joined", host={**policy("always"), "NetworkMode": f"container:{ids['always']}"})
    for id in stopped.values():
        api.post(f"/containers/{id}/stop", t=0).expect(204)
    if crash:
        daemon.kill()
        daemon.start()
    else:
        daemon.restart()
    for id in (ids["always"], ids["unless-stopped"], stopped["always"], joined):
        eventually(lambda id=id: state(api, id)["Running"])
    time.sleep(0.2)
    assert state(api, ids["no"])["Running"] is crash
    assert not state(api, stopped["unless-stopped"])["Running"]
    assert state(api, made)["Status"] == "created"


def test_a_crash_between_two_runs(daemon: Longshored, api: Client) -> None:
    id = run(api, "between", "sh", "-c", "exit 6", host=policy("always"))
    eventually(lambda: inspect(api, id)["RestartCount"] >= 5 and state(api, id)["Restarting"])
    daemon.kill()
    daemon.start()
    eventually(lambda: inspect(api, id)["RestartCount"] >= 1)
    assert state(api, id)["ExitCode"] in (0, 6)


def test_rm_applies_to_a_start_that_failed(api: Client) -> None:
    id = create(api, "unstartable", "/no/such/command", host={"AutoRemove": True})
    api.post(f"/containers/{id}/start").expect(400)
    eventually(lambda: api.get(f"/containers/{id}/json").status == 404)
