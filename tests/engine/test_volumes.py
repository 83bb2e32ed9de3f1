"""Volumes over the API: what newer versions of it mean, and what only swarms have."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from harness import Client, Longshored


@pytest.fixture
def api(daemon: Longshored) -> Iterator[Client]:
    """A client that leaves no volumes behind."""
    yield Client(daemon.socket, "1.50")
    daemon.reset()


def names(api: Client) -> set[str]:
    return {each["Name"] for each in api.get("/volumes").json["Volumes"]}


def test_volumes_of_clusters_are_for_swarms(daemon: Longshored, api: Client) -> None:
    asked = {"Name": "far", "ClusterVolumeSpec": {"AccessMode": {"Scope": "single"}}}
    refused = api.post("/volumes/create", asked)
    assert (refused.status, refused.message) == (
        503,
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
        "node to swarm and try again.",
    )
    assert names(api) == set()
    changed = api.put("/volumes/far", {"Spec": {}}, version=1)
    assert (changed.status, changed.message) == (
        503,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    )
    assert Client(daemon.socket, "1.41").put("/volumes/far", {"Spec": {}}).status == 404


def test_what_a_prune_takes(daemon: Longshored, api: Client) -> None:
    old = Client(daemon.socket, "1.41")
    anonymous = api.post("/volumes/create", {}).json["Name"]
    tmpfs = {"type": "tmpfs", "device": "tmpfs"}
    api.post("/volumes/create", {"Name": "named"})
    api.post("/volumes/create", {"Name": "labelled", "Labels": {"keep": "1"}})
    api.post("/volumes/create", {"Name": "options", "DriverOpts": tmpfs})
    used = {"Image": "busybox", "Volumes": {"/d": {}}}
    held = api.post("/containers/create", used, name="box").json["Id"]
    mounted = api.get(f"/containers/{held}/json").json["Mounts"][0]["Name"]

    def prune(by: Client, **filters: list[str]) -> list[str]:
        return sorted(by.post("/volumes/prune", filters=json.dumps(filters)).json["VolumesDeleted"])

    assert prune(api) == [anonymous]
    assert prune(api, all=["1"], **{"label!": ["keep"]}) == ["named"]
    assert prune(old) == ["labelled"]
    assert names(api) == {"options", mounted}
    api.delete(f"/containers/{held}", v=1)
    assert names(api) == {"options"}


def test_what_volumes_take(daemon: Longshored, api: Client) -> None:
    docker = daemon.docker
    docker(
        "run", "--rm", "-v", "vol:/d", "busybox", "sh", "-c", "head -c 5000 /dev/zero > /d/f; ln /d/f /d/g"
    )
    docker("create", "--name", "box", "-v", "vol:/d", "busybox", "true")
    docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "elsewhere")
    (told,) = api.get("/system/df", type="volume").json["Volumes"]
    assert (told["Name"], told["UsageData"]) == ("vol", {"Size": 5000, "RefCount": 1})
    assert "UsageData" not in api.get("/volumes/vol").json
