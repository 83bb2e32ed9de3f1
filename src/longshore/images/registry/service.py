"""What the engine asks of registries. Lives on the event loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from longshore.images.progress import ProgressCallback
from longshore.images.reference import Reference
from longshore.images.registry.endpoints import RegistrySettings
from longshore.images.registry.metadata import DistributionMetadata
from longshore.images.registry.platforms import Platform
from longshore.images.registry.pull import pull
from longshore.images.registry.transfers import LayerTransfers
from longshore.images.service import ImageService
from longshore.types.registry import AuthConfig


class RegistryService:
    """Pull, push, log in, look: each with the settings of the moment."""

    def __init__(self, root: Path, images: ImageService, settings: Callable[[], RegistrySettings]) -> None:
        """`root` is the data root that `images` uses, too."""
        self.settings = settings
        self.images = images.images
        self.references = images.references
        self.layers = images.layers
        self.metadata = DistributionMetadata(root / "image" / self.layers.driver_name)
        self.transfers = LayerTransfers(self.layers, self.metadata, root / "tmp", settings)

    async def pull(
        self, reference: Reference, platform: Platform | None, auth: AuthConfig, emit: ProgressCallback
    ) -> None:
        """Bring an image in; without tag and digest, every tag of the repository.

        `emit` gets Docker's messages, on the event loop. Raises NotFound, System, InvalidParameter.
        """
        await pull(self, reference, platform, auth, emit)
