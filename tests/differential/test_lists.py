"""Lists with filters: one crowd of containers, networks and volumes on both daemons, and many questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from differential.compare import Case, at, case, differences, play, request, send
from differential.containers import created, exited, running
from differential.networks import network
from harness import Daemon, Dockerd

NONE = {"NetworkMode": "none"}
CROWD = (
    *network(),
    request("POST /volumes/create", {"Name": "v2", "Labels": {"a": "2"}}),
    *running(
        "one",
        Labels={"a": "1"},
        ExposedPorts={"80/tcp": {}},
        HostConfig={
            "NetworkMode": "net1",
            "Binds": ["v1:/v"],
            "PortBindings": {"80/tcp": [{"HostPort": "20080"}]},
        },
    ),
    *exited("two", Labels={"a": "2"}, Cmd=["sh", "-c", "exit 3"], HostConfig=NONE),
    *created(
        "three", ExposedPorts={"90/tcp": {}}, HostConfig={"PortBindings": {"90/tcp": [{"HostPort": "20090"}]}}
    ),
    *running("four", HostConfig=NONE),
    request("POST /containers/four/pause"),
    *exited("five", HostConfig={**NONE, "Binds": ["v1:/w"]}),
    *running("six", Healthcheck={"Test": ["NONE"]}, HostConfig=NONE),
    request("POST /images/busybox/tag?repo=other&tag=1"),
    *created("seven", Image="other:1", HostConfig=NONE),
    request("DELETE /images/other:1?force=1"),
)


def containers(query: str = "", newer: str | None = None, **filters: Any) -> Case:
    """A question about containers; a filter `is_task` is `is-task`."""
    given = {name.replace("_", "-"): values for name, values in filters.items()}
    name = f"containers: {query} {json.dumps(given)}"
    path = f"GET /containers/json?{query}&filters={quote(json.dumps(given))}"
    return case(name, path, same=("*.Names", "*.State", "*.Command", "*.Image"), newer=newer)


def others(kind: str, names: str, newer: str | None = None, **filters: Any) -> Case:
    """The same about networks or volumes, which come in no order."""
    path = f"GET /{kind}?filters={quote(json.dumps(filters))}"
    return case(f"{kind}: {json.dumps(filters)}", path, same=(names,), newer=newer)


NETWORKS, VOLUMES = "*.Name", "Volumes.*.Name"
BAD_CODE = "invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax"
BAD_STATE = (
    "invalid filter 'status=nope': invalid value for state (nope): "
    "must be one of created, running, paused, restarting, removing, exited, dead"
)
BAD_HEALTH = (
    "invalid filter 'health=nope': invalid value for health (nope): "
    "must be one of none, starting, healthy, unhealthy"
)
CASES: list[Case] = [
    containers(),
    containers("all=1"),
    containers("limit=2"),
    containers("limit=0"),
    containers("limit=-1"),
    containers("limit=3", name=["o"]),
    containers("all=1&limit=1", status=["exited"]),
    containers("all=1", label=["a"]),
    containers("all=1", label=["a=2"]),
    containers("all=1", label=["a", "b"]),
    containers("all=1", name=["t"]),
    containers("all=1", name=["^/one$"]),
    containers("all=1", name=["^one$"]),
    containers("all=1", name=["one", "two"]),
    containers("all=1", name=["(one"]),
    containers("all=1", name=["/two"]),
    containers("all=1", id=["nope"]),
    containers("all=1", id=["e", "f"], name=["nope"]),
    containers("", status=["exited"]),
    containers("", status=["created", "paused"]),
    containers("all=1", status=["running"]),
    containers("", newer=BAD_STATE, status=["nope"]),
    containers("", exited=["3"]),
    containers("all=1", exited=["3"]),
    containers("all=1", exited=["0", "3"]),
    containers(
        "all=1", exited=["x"], newer="invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax"
    ),
    containers("all=1", ancestor=["busybox"]),
    containers("all=1", ancestor=["busybox:latest"]),
    containers("all=1", ancestor=["other:1"]),
    containers("all=1", ancestor=["nope", "busybox"]),
    containers("all=1", ancestor=["nope"]),
    containers("all=1", ancestor=["NOT A NAME"]),
    containers("all=1", network=["net1"]),
    containers("all=1", network=["none"]),
    containers("all=1", network=["bridge"]),
    containers("all=1", network=["nope"]),
    containers("", before=["four"]),
    containers("", since=["two"]),
    containers("all=1", before=["/four"]),
    containers("all=1", since=["two"], before=["six"]),
    containers("all=1", before=["four", "four"]),
    containers("all=1", before=["nope"], newer="No such container: nope"),
    containers("all=1", since=["nope"], newer="No such container: nope"),
    containers("all=1", health=["none"]),
    containers("all=1", newer=BAD_HEALTH, health=["nope"]),
    containers("all=1", health=["healthy", "starting"]),
    containers("all=1", expose=["80"]),
    containers("all=1", expose=["80/udp"]),
    containers("all=1", expose=["70-95/tcp"]),
    containers("all=1", expose=["81/udp"]),
    containers("all=1", expose=["90"]),
    containers("all=1", expose=["x"]),
    containers("all=1", expose=["80:80"]),
    containers("all=1", expose=["9-8"]),
    containers("all=1", publish=["20080"]),
    containers("all=1", publish=["80"]),
    containers("all=1", publish=["20000-20100/tcp"]),
    containers("all=1", publish=["20090"]),
    containers("all=1", publish=["80/nope"]),
    containers("all=1", publish=["1"], expose=["81/udp"]),
    containers("all=1", volume=["v1"]),
    containers("all=1", volume=["/v"]),
    containers("all=1", volume=["/tmp"]),
    containers("all=1", volume=["v1", "nope"]),
    containers("all=1", volume=["/v", "/w"]),
    containers("all=1", volume=["nope"]),
    containers("all=1", is_task=["false"]),
    containers("all=1", is_task=["true"]),
    containers("all=1", is_task=["maybe"], newer="invalid filter 'is-task=[maybe]'"),
    containers("all=1", isolation=["default"]),
    containers("all=1", isolation=["nope"]),
    containers("all=1", name=[]),
    containers("all=1", nope=["x"]),
    containers("all=1&size=1"),
    others("networks", NETWORKS, driver=["bridge"], type=["custom"]),
    others("networks", NETWORKS, name=["n1", "^none$"]),
    others("networks", NETWORKS, dangling=["x"], newer="invalid filter 'dangling=[x]'"),
    others("networks", NETWORKS, scope=["swarm"]),
    others("networks", NETWORKS, type=["builtin"], driver=["null"]),
    others("volumes", VOLUMES, dangling=["true"]),
    others("volumes", VOLUMES, dangling=["0"]),
    others("volumes", VOLUMES, dangling=["x"]),
    others("volumes", VOLUMES, name=["^v"]),
    others("volumes", VOLUMES, name=["v1", "nope"]),
    others("volumes", VOLUMES, label=["a=2"]),
    others("volumes", VOLUMES, driver=["local"]),
    others("volumes", VOLUMES, driver=["nope"]),
    others("volumes", VOLUMES, nope=["x"]),
]


@pytest.fixture(scope="module")
def crowd(oracle: Dockerd, ours: Daemon) -> Iterator[tuple[Daemon, Daemon]]:
    try:
        for daemon in (oracle, ours):
            for step in CROWD:
                answer = send(daemon, step)
                assert answer.status < 400, f"{step}: {answer.status} {answer.body!r}"
        yield oracle, ours
    finally:
        oracle.reset()
        ours.reset()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_list(crowd: tuple[Daemon, Daemon], case: Case) -> None:
    theirs, ours = (play(daemon, case) for daemon in crowd)
    if theirs.status == ours.status == 200 and case.same[0] in (NETWORKS, VOLUMES):
        wanted, got = (sorted(at(answer.json, case.same[0]) or []) for answer in (theirs, ours))
        assert got == wanted
        return
    found = differences(case, theirs, ours)
    assert not found, "\n".join(found)


def test_networks_in_use_do_not_dangle(crowd: tuple[Daemon, Daemon]) -> None:
    """The oracle forgets to look who is on a network."""
    api = crowd[1].client
    for value, names in (("true", []), ("false", ["bridge", "host", "net1", "none"])):
        answer = api.get("/networks", filters={"dangling": [value]}).expect(200)
        assert sorted(each["Name"] for each in answer.json) == names
