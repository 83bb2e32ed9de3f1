"""A registry client on stores of its own, and what it asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from harness.registry import FakeRegistry

from longshore.images.reference import parse
from longshore.images.registry.endpoints import RegistrySettings
from longshore.images.registry.platforms import parse_platform
from longshore.images.registry.service import RegistryService
from longshore.images.service import ImageService
from longshore.layers.store import LayerStore
from longshore.types.registry import AuthConfig

Message = dict[str, Any]


class Puller:
    """A registry client on stores of its own."""

    def __init__(self, root: Path, fake: FakeRegistry, **settings: Any) -> None:
        self.root = root
        self.fake = fake
        self.layers = LayerStore(root, "vfs")
        self.images = ImageService(root, self.layers)
        self.settings = RegistrySettings(retry_delay=0.05, **settings)
        self.messages: list[Message] = []

    def service(self) -> RegistryService:
        return RegistryService(self.root, self.images, lambda: self.settings)

    def pull(self, name: str, platform: str = "", auth: AuthConfig | None = None) -> None:
        asyncio.run(self.pull_with(self.service(), name, platform, auth))

    async def pull_with(
        self, service: RegistryService, name: str, platform: str = "", auth: AuthConfig | None = None
    ) -> None:
        reference = parse(f"{self.fake.address}/{name}")
        wanted = parse_platform(platform) if platform else None
        await service.pull(reference, wanted, auth or AuthConfig(), self.messages.append)

    def said(self, status: str) -> list[Message]:
        return [message for message in self.messages if message.get("status") == status]

    def assert_nothing_came(self) -> None:
        assert self.layers.layers() == []
        assert self.images.list() == []
        assert self.layers.driver.ids() == set()
        assert not list((self.root / "tmp").glob("*"))


def blob_requests(fake: FakeRegistry) -> list[str]:
    """The digests that were asked for, in order."""
    return [path.rpartition("/")[2] for method, path, _ in fake.requests if "/blobs/" in path]
