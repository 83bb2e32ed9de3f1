"""Health checks: probes of real containers, and the times between them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from harness import DockerCLI

from longshore.engine.health import next_interval
from longshore.types.container import HealthConfig

SECOND = 1_000_000_000


def health(docker: DockerCLI, box: str) -> dict[str, Any]:
    """State.Health of the container."""
    return json.loads(docker.out("inspect", "-f", "{{json .State.Health}}", box))  # type: ignore[no-any-return]


def wait_for(docker: DockerCLI, box: str, status: str) -> dict[str, Any]:
    """Its health once it has come to `status`."""
    deadline = time.monotonic() + 15
    while (found := health(docker, box))["Status"] != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def start(docker: DockerCLI, command: str, *options: str) -> str:
    """A container with a health check that runs often."""
    check = ("--health-cmd", command, "--health-interval", "200ms", "--health-retries", "2")
    return docker.out("run", "-d", "--network", "none", *check, *options, "busybox", "sleep", "1000")


def test_unhealthy_until_it_is_well(docker: DockerCLI) -> None:
    box = start(docker, "echo looked; test -e /well")
    assert health(docker, box)["Status"] == "starting"
    sick = wait_for(docker, box, "unhealthy")
    assert sick["FailingStreak"] >= 2
    assert sick["Log"][-1]["Output"] == "looked\n"
    assert sick["Log"][-1]["ExitCode"] == 1
    docker("exec", box, "touch", "/well")
    assert wait_for(docker, box, "healthy")["FailingStreak"] == 0
    time.sleep(1.5)
    assert len(health(docker, box)["Log"]) == 5
    events = docker.out("events", "--since", "1m", "--until", "0s", "--filter", "event=health_status")
    assert "health_status: unhealthy" in events
    assert "health_status: healthy" in events


@pytest.mark.proves("HealthConfig.Timeout")
def test_a_probe_that_takes_too_long_is_killed(docker: DockerCLI) -> None:
    box = start(docker, "echo begun; sleep 99", "--health-timeout", "300ms")
    found = wait_for(docker, box, "unhealthy")
    assert found["Log"][-1]["ExitCode"] == -1
    assert found["Log"][-1]["Output"] == "Health check exceeded timeout (300ms): begun\n"


def test_long_output_is_cut(docker: DockerCLI) -> None:
    box = start(docker, "yes | head -c 10000")
    found = wait_for(docker, box, "healthy")
    assert len(found["Log"][0]["Output"]) == 4096 + len("...")


def test_none_switches_it_off(docker: DockerCLI) -> None:
    box = docker.out("run", "-d", "--network", "none", "--no-healthcheck", "busybox", "sleep", "1000")
    assert docker.out("inspect", "-f", "{{json .State.Health}}", box) == "null"


@pytest.mark.parametrize(
    ("age", "starting", "expected"),
    [(0, True, 1), (9.5, True, 0.5), (11, True, 30), (0, False, 30)],
)
def test_a_starting_container_is_probed_more_often(age: float, starting: bool, expected: float) -> None:
    config = HealthConfig(Interval=30 * SECOND, StartPeriod=10 * SECOND, StartInterval=SECOND)
    assert next_interval(config, int(age * SECOND), starting=starting) == expected * SECOND
