"""Registries for these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.registry import FakeRegistry
from registry.pulling import Puller


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry that can be made to misbehave."""
    registry = FakeRegistry()
    yield registry
    registry.close()


@pytest.fixture
def puller(tmp_path: Path, fake: FakeRegistry) -> Puller:
    """Pulls from it, into stores of its own."""
    return Puller(tmp_path, fake)
