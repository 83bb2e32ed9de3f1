"""Fixtures for tests of the API alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api.served import Serve, Served

from longshore.api import server as server_module
from longshore.api.router import ROUTES, Router
from longshore.api.routes import Route
from longshore.config import Config


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server; routes given are served before the real ones."""
    running: list[Served] = []

    def start(*routes: Route, hosts: tuple[str, ...] = (), **settings: Any) -> Served:
        path = tmp_path / "api.sock"
        monkeypatch.setattr(server_module, "Router", lambda engine: Router(engine, routes + ROUTES))
        served = Served(Config(hosts=[f"unix://{path}", *hosts], **settings), path)
        running.append(served)
        served.start()
        return served

    yield start
    for served in running:
        served.stop()
        assert not served.leaked
