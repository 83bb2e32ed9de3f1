"""Statistics, changed limits, and images made of containers."""

from __future__ import annotations

import json

import pytest
from harness import Client, DockerCLI


@pytest.fixture
def box(docker: DockerCLI) -> str:
    """A container that runs and does nothing."""
    return docker.out("run", "-d", "--network", "none", "busybox", "sleep", "1000")


def test_one_reading_has_the_one_before(api: Client, box: str) -> None:
    reading = api.get(f"/containers/{box}/stats", stream=0).expect(200).json
    assert reading["id"] == box
    assert reading["preread"] < reading["read"]
    used, before = reading["cpu_stats"], reading["precpu_stats"]
    assert used["system_cpu_usage"] > before["system_cpu_usage"] > 0
    assert reading["pids_stats"]["current"] == 1
    assert 0 < reading["memory_stats"]["usage"] < reading["memory_stats"]["limit"]
    assert "networks" not in reading


def test_one_shot(api: Client, box: str) -> None:
    reading = api.get(f"/containers/{box}/stats", stream=0, **{"one-shot": 1}).json
    assert reading["preread"] == "0001-01-01T00:00:00Z"
    assert reading["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    refused = api.get(f"/containers/{box}/stats", stream=1, **{"one-shot": 1})
    assert refused.message == "cannot have stream=true and one-shot=true"


def test_the_cli_shows_them(docker: DockerCLI, box: str) -> None:
    told = json.loads(docker.out("stats", "--no-stream", "--format", "{{json .}}", box))
    assert told["PIDs"] == "1"


def test_limits_change_while_it_runs(docker: DockerCLI, api: Client, box: str) -> None:
    docker("update", "--memory", "50m", "--memory-swap", "100m", "--restart", "on-failure:3", box)
    described = api.get(f"/containers/{box}/json").json["HostConfig"]
    assert described["Memory"] == 50 << 20
    assert described["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert api.get(f"/containers/{box}/stats", stream=0).json["memory_stats"]["limit"] == 50 << 20
    refused = api.post(f"/containers/{box}/update", {"Memory": 200 << 20})
    assert refused.status == 409
    assert refused.message.startswith(f"Cannot update container {box}: Memory limit should be smaller than")
