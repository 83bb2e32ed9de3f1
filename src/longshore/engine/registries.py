"""What daemon.json says about registries."""

from __future__ import annotations

from longshore.config import Config
from longshore.images.registry.endpoints import RegistrySettings


def registry_settings(config: Config) -> RegistrySettings:
    """The registry client's part of the configuration."""
    return RegistrySettings(
        mirrors=tuple(config.registry_mirrors),
        insecure=tuple(config.insecure_registries),
        proxies=dict(config.proxies),
        max_concurrent_downloads=config.max_concurrent_downloads,
        max_concurrent_uploads=config.max_concurrent_uploads,
        max_download_attempts=config.max_download_attempts,
    )
