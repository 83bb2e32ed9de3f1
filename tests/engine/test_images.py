"""Images over the API, where newer versions ask for more than dockerd 20.10 answers."""

from __future__ import annotations

import json

import pytest
from harness import Client, Longshored
from harness.images import ARCHITECTURE

HERE = json.dumps({"os": "linux", "architecture": ARCHITECTURE})
ELSEWHERE = json.dumps({"os": "linux", "architecture": "s390x"})


@pytest.mark.parametrize("path", ["/images/busybox/json", "/images/busybox/history"])
def test_an_image_is_looked_at_by_platform(api: Client, path: str) -> None:
    api.get(path, platform=HERE).expect(200)
    refused = api.get(path, platform=ELSEWHERE).expect(404)
    assert "was found but its platform (linux/" in refused.message
    api.get(path, platform="{").expect(400)


def test_platform_and_manifests_exclude_each_other(api: Client) -> None:
    api.get("/images/busybox/json", manifests=1).expect(200)
    refused = api.get("/images/busybox/json", manifests=1, platform=HERE).expect(400)
    assert refused.message == "conflicting options: manifests and platform options cannot both be set"


def test_an_image_is_removed_by_platform(api: Client) -> None:
    api.post("/images/busybox/tag", repo="other").expect(201)
    api.delete("/images/other", platforms=ELSEWHERE).expect(404)
    assert api.delete("/images/other", platforms=HERE).expect(200).json == [{"Untagged": "other:latest"}]


def test_containers_are_counted_for_disk_usage_only(daemon: Longshored, api: Client) -> None:
    before, usage_before = api.get("/images/json", all=1).json, api.get("/system/df").json["Images"]
    api.post("/containers/create", {"Image": "busybox"}, name="user").expect(201)
    for _ in range(2):  # The first comes to stand between, with no name of its own.
        api.post("/commit", {}, container="user", repo="made").expect(201)
        api.delete("/containers/user").expect(204)
        api.post("/containers/create", {"Image": "made"}, name="user").expect(201)
    listed, usage = api.get("/images/json", all=1).json, api.get("/system/df").json["Images"]
    used = {tag: image["Containers"] for image in usage for tag in image["RepoTags"]}
    assert {image["Containers"] for image in listed} == {-1}
    assert (used["busybox:latest"], used["made:latest"]) == (0, 1)
    assert len(listed) == len(before) + 2
    assert len(usage) == len(usage_before) + 1
    api.delete("/images/made", force=1).expect(200)
