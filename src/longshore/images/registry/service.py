"""What the engine asks of registries. Lives on the event loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from longshore.images.progress import ProgressCallback
from longshore.images.reference import Reference
from longshore.images.registry import lookups
from longshore.images.registry.endpoints import RegistrySettings
from longshore.images.registry.metadata import DistributionMetadata
from longshore.images.registry.platforms import Platform
from longshore.images.registry.pull import pull
from longshore.images.registry.push import push
from longshore.images.registry.threads import Slots
from longshore.images.registry.transfers import LayerTransfers
from longshore.images.service import ImageService
from longshore.types.registry import AuthConfig, DistributionInspect, SearchResult


class RegistryService:
    """Pull, push, log in, look: each with the settings of the moment."""

    def __init__(self, root: Path, images: ImageService, settings: Callable[[], RegistrySettings]) -> None:
        """`root` is the data root that `images` uses, too."""
        self.settings = settings
        self.images = images.images
        self.references = images.references
        self.layers = images.layers
        self.metadata = DistributionMetadata(root / "image" / self.layers.driver_name)
        self.upload_slots = Slots(lambda: settings().max_concurrent_uploads)
        self.transfers = LayerTransfers(self.layers, self.metadata, root / "tmp", settings)

    async def pull(
        self, reference: Reference, platform: Platform | None, auth: AuthConfig, emit: ProgressCallback
    ) -> None:
        """Bring an image in; without tag and digest, every tag of the repository.

        `emit` gets Docker's messages, on the event loop. Raises NotFound, System, InvalidParameter.
        """
        await pull(self, reference, platform, auth, emit)

    async def push(self, reference: Reference, auth: AuthConfig, emit: ProgressCallback) -> None:
        """Bring an image to its registry; without tag, every tag of the repository.

        `emit` gets Docker's messages, on the event loop. Raises NotFound, System.
        """
        await push(self, reference, auth, emit)

    async def log_in(self, auth: AuthConfig) -> str:
        """An identity token to be used instead of the password, or "". Raises Unauthorized, System."""
        return await lookups.log_in(self, auth)

    async def inspect(self, reference: Reference, auth: AuthConfig) -> DistributionInspect:
        """What the name means in its registry. Raises NotFound, System."""
        return await lookups.inspect(self, reference, auth)

    async def search(self, term: str, limit: int, auth: AuthConfig) -> list[SearchResult]:
        """What the index has for the term. Raises InvalidParameter, System."""
        return await lookups.search(self, term, limit, auth)
