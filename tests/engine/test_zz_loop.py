"""The daemon killed at random moments amid starts and removals: afterwards nothing is left over."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from engine.survival import api_of, eventually, left_over, links_of
from harness import Longshored

ROUNDS = 25
COMMANDS = ("sleep 600", "exit 3", "sleep 0.3; exit 4")


class Driver(threading.Thread):
    """A client that does anything to a few containers, minding neither refusals nor a dead daemon."""

    def __init__(self, daemon: Longshored, number: int) -> None:
        super().__init__()
        self.number = number
        self.api = api_of(daemon)
        self.random = random.Random(23328 + number)
        self.over = threading.Event()
        self.answers: Counter[tuple[str, int]] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        turn = 0
        while not self.over.is_set():
            turn += 1
            try:
                self._act(turn)
            except OSError:
                time.sleep(0.05)

    def _act(self, turn: int) -> None:
        name = f"c{self.number}-{turn % 3}"
        action = self.random.choice(["create", "run", "run --rm", "rm", "stop", "start", "kill", "restart"])
        if action in ("create", "run", "run --rm"):
            rm = action == "run --rm"
            answer = self.api.post(
                "/containers/create", self._body(rm), name=f"{name}-{turn}" if rm else name
            )
            if answer.status == 201 and action != "create":
                self._note("start", self.api.post(f"/containers/{answer.json['Id']}/start"))
        elif action == "rm":
            answer = self.api.delete(f"/containers/{name}", force=1, v=1)
        else:
            wait = {"t": 0} if action in ("stop", "restart") else {}
            answer = self.api.post(f"/containers/{name}/{action}", **wait)
        self._note(action, answer)

    def _note(self, action: str, answer: Any) -> None:
        self.answers[action, answer.status] += 1
        if answer.status >= 500:
            self.failures.append(f"{action}: {answer.body!r}")

    def _body(self, rm: bool) -> dict[str, Any]:
        policy = "" if rm else self.random.choice(["", "always", "on-failure"])
        return {
            "Image": "busybox",
            "Cmd": ["sh", "-c", self.random.choice(COMMANDS)],
            "Volumes": {"/data": {}},
            "ExposedPorts": {"80/tcp": {}},
            "StopTimeout": 1,
            "HostConfig": {
                "AutoRemove": rm,
                "IpcMode": "shareable",
                "PortBindings": {"80/tcp": [{"HostPort": ""}]},
                "RestartPolicy": {"Name": policy},
            },
        }


@pytest.fixture
def daemon(root: None, machine: Any, busybox_archive: Any) -> Iterator[Longshored]:
    one = Longshored()
    one.flags = ("--cgroup-parent", one.cgroup)
    try:
        one.start()
        one.load(busybox_archive)
        yield one
        one.destroy()
    finally:
        one.sweep()


def test_nothing_is_left_after_crashes_at_random_moments(daemon: Longshored) -> None:
    moments = random.Random(2157)
    drivers = [Driver(daemon, number) for number in range(3)]
    for driver in drivers:
        driver.start()
    try:
        for round in range(ROUNDS):
            time.sleep(moments.uniform(0.05, 1.0))
            if round % 2:  # what containerd and the kernel were asked for goes on without the daemon
                os.kill(daemon.pid, signal.SIGSTOP)
                time.sleep(moments.uniform(0, 0.2))
            daemon.kill()
            daemon.start()
    finally:
        for driver in drivers:
            driver.over.set()
        for driver in drivers:
            driver.join()
    answers = sum((driver.answers for driver in drivers), Counter())
    assert answers["start", 204] >= ROUNDS, answers
    assert not [failure for driver in drivers for failure in driver.failures]

    api = api_of(daemon)
    for container in api.get("/containers/json", all=1).expect(200).json:
        api.delete(f"/containers/{container['Id']}", force=1, v=1).expect(204, 404)
    eventually(lambda: not api.get("/containers/json", all=1).json)
    for _ in range(100):
        if not (left := left_over(daemon) + links_of(daemon)):
            break
        time.sleep(0.1)
    assert left == []
