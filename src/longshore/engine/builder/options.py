"""What a client asks of a build."""

from __future__ import annotations

from dataclasses import dataclass, field

from longshore.types.container import HostConfig
from longshore.types.registry import AuthConfig


@dataclass(frozen=True)
class BuildOptions:
    """The parameters of POST /build, by what they mean."""

    tags: list[str] = field(default_factory=list)
    dockerfile: str = ""
    remote: str = ""
    target: str = ""
    platform: str = ""
    quiet: bool = False
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    """Stages, by name, whose steps are not looked for in the cache."""
    pull: bool = False
    squash: bool = False
    remove: bool = True
    """Intermediate containers go after a step that succeeded …"""
    force_remove: bool = False
    """… and after one that failed."""
    arguments: dict[str, str | None] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    cache_from: list[str] = field(default_factory=list)
    host_config: HostConfig = field(default_factory=HostConfig)
    """Limits, network and the like of the containers that steps run in."""
    credentials: dict[str, AuthConfig] = field(default_factory=dict)
    """For pulls, by the registry's name."""
    session: str = ""
    """The session of the client that may be asked for secrets, agents, files and credentials."""
    contexts: dict[str, str] = field(default_factory=dict)
    """Further contexts by name, as BuildKit's clients write them: `docker-image://…`, `local:…`."""
    local_dockerfile: bool = False
    """The Dockerfile is the client's, although the context is elsewhere."""
    entitlements: frozenset[str] = frozenset()
    """What steps may ask for beyond the ordinary, as BuildKit calls it: `network.host`."""
