"""The daemon that is compared with the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from differential.compare import SELF
from harness import Daemon, Dockerd, Longshored


@pytest.fixture(scope="session")
def ours(request: pytest.FixtureRequest, oracle: Dockerd, busybox_archive: Path) -> Iterator[Daemon]:
    if not SELF:
        daemon: Longshored = request.getfixturevalue("daemon")
        yield daemon
        return
    twin = Dockerd()
    try:
        twin.start()
        twin.load(busybox_archive)
        yield twin
    finally:
        twin.destroy()
