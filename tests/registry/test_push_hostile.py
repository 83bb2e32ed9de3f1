"""Pushing to registries that fail on the way."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from harness.images import Layer, docker_archive
from harness.registry import FakeRegistry

from longshore.errors import EngineError
from longshore.images.reference import parse
from longshore.images.registry.endpoints import RegistrySettings
from longshore.images.registry.service import RegistryService
from longshore.images.service import ImageService
from longshore.layers.store import LayerStore
from longshore.types.registry import AuthConfig

pytestmark = pytest.mark.usefixtures("root")
NOISE = random.Random(3).randbytes(2_500_000)
Message = dict[str, Any]


class Pusher:
    """A registry client with one image: a large layer below a small one."""

    def __init__(self, root: Path, fake: FakeRegistry) -> None:
        layers = LayerStore(root / "data", "vfs")
        self.images = ImageService(root / "data", layers)
        self.fake = fake
        self.name = f"{fake.address}/team/app:1"
        docker_archive(root / "app.tar", [Layer({"noise": NOISE}), Layer({"a": b"x"})], [self.name])
        with (root / "app.tar").open("rb") as archive:
            self.images.load(archive, lambda _: None)
        self.messages: list[Message] = []
        settings = RegistrySettings(retry_delay=0.05, max_download_attempts=3)
        self.registry = RegistryService(root / "data", self.images, lambda: settings)

    async def push(self) -> None:
        await self.registry.push(parse(self.name), AuthConfig(), self.messages.append)

    def assert_complete(self) -> None:
        """The registry has the manifest, and everything that it needs."""
        content, _ = self.fake.manifests["team/app/manifests/1"]
        manifest = json.loads(content)
        assert manifest["config"]["digest"] == self.images.resolve(self.name).id
        for blob in (manifest["config"], *manifest["layers"]):
            assert len(self.fake.blobs[blob["digest"]]) == blob["size"]
        assert self.messages[-1]["aux"]["Size"] == len(content)


@pytest.fixture
def pusher(tmp_path: Path, fake: FakeRegistry) -> Pusher:
    return Pusher(tmp_path, fake)


def test_small_layers_take_one_request_and_large_ones_are_streamed(
    pusher: Pusher, fake: FakeRegistry
) -> None:
    asyncio.run(pusher.push())
    pusher.assert_complete()
    assert [fake.asked(method, "/blobs/uploads/") for method in ("POST", "PATCH", "PUT")] == [3, 1, 3]
    headers = next(headers for method, _, headers in fake.requests if method == "PATCH")
    assert headers["Transfer-Encoding"] == "chunked"
    assert fake.uploads == {}


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_an_upload_that_failed_is_made_again(pusher: Pusher, fake: FakeRegistry, method: str) -> None:
    failed = []

    def fail(handler: Any) -> bool:
        if handler.command != method or failed:
            return False
        failed.append(1)
        handler.answer(503, b"")
        return True

    fake.behave = fail
    asyncio.run(pusher.push())
    pusher.assert_complete()
    assert failed


def test_an_upload_that_always_fails_is_given_up(pusher: Pusher, fake: FakeRegistry) -> None:
    def fail(handler: Any) -> bool:
        if handler.command != "PATCH":
            return False
        handler.answer(500, b"")
        return True

    fake.behave = fail
    with pytest.raises(EngineError, match="received unexpected HTTP status: 500 Internal Server Error"):
        asyncio.run(pusher.push())
    assert fake.asked("PATCH", "/uploads/") == 3
    assert not any("/manifests/" in path for method, path, _ in fake.requests if method == "PUT")
    assert fake.uploads == {}


def test_what_the_registry_lost_is_sent_again(pusher: Pusher, fake: FakeRegistry) -> None:
    asyncio.run(pusher.push())
    fake.blobs.clear()
    asyncio.run(pusher.push())
    pusher.assert_complete()


def test_a_push_that_is_cancelled_ends(pusher: Pusher, fake: FakeRegistry) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def stall(handler: Any) -> bool:
        if handler.command == "PATCH":
            asked.set()
            go_on.wait(20)
        return False

    fake.behave = stall

    async def cancelled() -> float:
        push = asyncio.create_task(pusher.push())
        await asyncio.to_thread(asked.wait, 10)
        began = time.monotonic()
        push.cancel()
        await asyncio.sleep(0.1)
        go_on.set()
        await asyncio.wait([push])
        return time.monotonic() - began

    assert asyncio.run(cancelled()) < 2
    assert not any("/manifests/" in path for method, path, _ in fake.requests if method == "PUT")
