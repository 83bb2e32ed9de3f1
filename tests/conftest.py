"""Fixtures for the whole suite. Without root, what needs it is skipped and the rest runs."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from harness import Busybox, Client, Daemon, DockerCLI, Dockerd, Longshored, Machine
from harness.machine import give_back_shared
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # A machine may be slow, and is right all the same.
settings.load_profile("untimed")

_SHARED = os.environ.get("LONGSHORE_TEST_MACHINE") == "shared"
"""Others work on this machine while the suite runs: what changes may be theirs, so nothing is concluded."""

D = TypeVar("D", bound=Daemon)

_daemons: list[Daemon] = []


@pytest.fixture(scope="session", autouse=True)
def machine() -> Iterator[Machine]:
    """The machine as the session found it. The session fails if it is not left like that."""
    before = Machine.look()
    yield before
    if not _SHARED:
        give_back_shared(before)
        changes = _settled_changes(before)
        for daemon in _daemons:
            daemon.sweep()
        assert not changes, "the machine is not as it was found:\n" + "\n".join(changes)


def _settled_changes(before: Machine, patience: float = 10) -> list[str]:
    """What has changed once processes that are on their way out are gone."""
    deadline = time.monotonic() + patience
    while (changes := before.changes(Machine.look())) and time.monotonic() < deadline:
        time.sleep(0.2)
    return changes


@pytest.fixture(scope="session")
def root() -> None:
    """For tests that need root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def busybox_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A docker-archive of a busybox image, tagged busybox:latest."""
    return Busybox.archive(tmp_path_factory.mktemp("images") / "busybox.tar")


@pytest.fixture(scope="session")
def daemon(root: None, machine: Machine, busybox_archive: Path) -> Iterator[Longshored]:
    """One longshored for the session, with busybox:latest loaded."""
    yield from _serve(Longshored(), busybox_archive)


@pytest.fixture(scope="session")
def oracle(machine: Machine, busybox_archive: Path) -> Iterator[Dockerd]:
    """dockerd in namespaces of its own, with busybox:latest loaded; skipped where there is none."""
    if reason := Dockerd.missing():
        pytest.skip(reason)
    yield from _serve(Dockerd(), busybox_archive)


@pytest.fixture
def fresh_daemon(root: None, machine: Machine, busybox_archive: Path) -> Iterator[Longshored]:
    """A longshored for one test that kills or restarts it."""
    yield from _serve(Longshored(), busybox_archive)


def _serve(daemon: D, archive: Path) -> Iterator[D]:
    _daemons.append(daemon)
    try:
        daemon.start()
        daemon.load(archive)
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def docker(daemon: Longshored) -> Iterator[DockerCLI]:
    """The docker CLI on the session's longshored; what the test made is removed after it."""
    yield daemon.docker
    daemon.reset()


@pytest.fixture
def api(daemon: Longshored) -> Iterator[Client]:
    """Raw HTTP to the session's longshored, newest version; what the test made is removed after it."""
    yield Client(daemon.socket, version="1.50")
    daemon.reset()


@pytest.fixture
def sdk(daemon: Longshored) -> Iterator[object]:
    """The Python SDK on the session's longshored; what the test made is removed after it."""
    client = daemon.sdk()
    yield client
    client.close()  # type: ignore[attr-defined]
    daemon.reset()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of each daemon's log with a failed test."""
    report = yield
    if report.failed:
        for daemon in _daemons:
            if daemon.root.exists():
                report.sections.append((f"{daemon.kind} log ({daemon.root})", daemon.tail(40)))
    return report
