"""Registries for these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.registry import FakeRegistry


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry that can be made to misbehave."""
    registry = FakeRegistry()
    yield registry
    registry.close()
