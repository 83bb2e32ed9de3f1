"""Kernel parameters of the container's own namespaces."""

from __future__ import annotations

from pathlib import Path

from longshore.oci.input import SpecInput
from longshore.oci.namespaces import remapped


def sysctls(container: SpecInput) -> dict[str, str]:
    """Docker's defaults for a network namespace of one's own, the domain name, then the user's."""
    result: dict[str, str] = {}
    mode = container.host_config.NetworkMode
    if mode != "host" and not mode.startswith("container:") and container.network_namespace != "host":
        # Ping and low ports without capabilities: safe, as both end at the namespace.
        if not remapped(container) and _exists("net.ipv4.ping_group_range"):
            result["net.ipv4.ping_group_range"] = "0 2147483647"
        if _exists("net.ipv4.ip_unprivileged_port_start"):
            result["net.ipv4.ip_unprivileged_port_start"] = "0"
    if container.config.Domainname and container.uts_namespace is None:
        result["kernel.domainname"] = container.config.Domainname
    result.update(container.host_config.Sysctls or {})
    return result


def _exists(name: str) -> bool:
    return Path("/proc/sys", name.replace(".", "/")).exists()
