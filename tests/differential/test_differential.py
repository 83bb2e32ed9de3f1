"""The same requests to dockerd and to longshored, answered the same.

`LONGSHORE_DIFFERENTIAL=dockerd` compares dockerd with itself: what fails then is a flaw of a case.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from differential import containers, creation, events, images, logs, networks, system, volumes
from differential.compare import SELF, Case, at, differences, normal, play, send
from harness import Client, Daemon, Dockerd

CASES: list[Case] = [
    *system.CASES,
    *creation.CASES,
    *containers.CASES,
    *images.CASES,
    *networks.CASES,
    *logs.CASES,
    *volumes.CASES,
]


@pytest.fixture
def pair(oracle: Dockerd, ours: Daemon) -> Iterator[tuple[Daemon, Daemon]]:
    yield oracle, ours
    oracle.reset()
    ours.reset()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_answer(pair: tuple[Daemon, Daemon], case: Case) -> None:
    theirs, ours = (play(daemon, case) for daemon in pair)
    if not SELF and b"page not found" in ours.body and b"page not found" not in theirs.body:
        pytest.skip(f"not served yet: {case.request.method} {case.request.path.partition('?')[0]}")
    found = differences(case, theirs, ours, strict=SELF)
    assert not found, "\n".join([f"{case.request.method} {case.request.path}", *found])


@pytest.mark.parametrize("case", events.CASES, ids=lambda case: case.name)
def test_same_events(pair: tuple[Daemon, Daemon], case: events.EventCase) -> None:
    theirs, ours = (_events(daemon, case) for daemon in pair)
    for message in ours:  # newer versions tell how long it ran
        if isinstance(attributes := message.get("Actor.Attributes"), dict):
            attributes.pop("execDuration", None)
    if case.doubled:
        theirs = [each for each, before in zip(theirs, [None, *theirs], strict=False) if each != before]
    assert ours == theirs


def _events(daemon: Daemon, case: events.EventCase) -> list[Any]:
    """What happened on the daemon during the case's steps, without what differs by nature."""
    since, made = time.time(), ""
    for step in case.steps:
        answer = send(daemon, replace(step, path=step.path.replace("{Id}", made)))
        assert answer.status < 500, f"{step}: {answer.status} {answer.body!r}"
        if answer.status == 201 and answer.body:
            made = answer.json.get("Id", "")
    time.sleep(0.3)
    client = Client(daemon.socket, "1.41")
    query = {"since": f"{since:.6f}", "until": f"{time.time():.6f}", "filters": case.filters}
    messages = client.get("/events", **query).expect(200).lines
    kept = [{key: at(message, key) for key in case.keys} for message in messages]
    found = [normal(message) for message in kept]
    return found if case.ordered else sorted(found, key=repr)
