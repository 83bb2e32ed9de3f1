"""What is asked of a sandbox, and what is stored of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from longshore.network.endpoint import Endpoint, PortBinding


class SandboxOptions(msgspec.Struct, kw_only=True):
    """What is asked of a sandbox. Without paths no files are written."""

    host: bool = False
    """Use the machine's own namespace."""
    namespace_of: int | None = None
    """Use the namespace of this process, which then belongs to that process's user namespace."""
    hostname: str = ""
    domainname: str = ""
    hosts_path: Path | None = None
    resolv_conf_path: Path | None = None
    extra_hosts: list[str] = []
    dns: list[str] = []
    dns_search: list[str] = []
    dns_options: list[str] = []
    links: list[tuple[str, str, str]] = []
    """Legacy links: name, alias, address."""
    port_bindings: list[PortBinding] = []
    """What to publish, wherever the way out is."""
    exposed: list[tuple[str, int]] = []
    """Protocols and ports that the container exposes, which plug-ins are told."""
    sysctls: dict[str, str] = {}
    """Of the network namespace, e.g. net.ipv4.ip_unprivileged_port_start."""


class SandboxRecord(msgspec.Struct, kw_only=True):
    """A sandbox as it is stored: written before anything is made, so that all of it is found again."""

    id: str
    container_id: str
    key: str
    options: SandboxOptions
    endpoints: list[Endpoint] = []
