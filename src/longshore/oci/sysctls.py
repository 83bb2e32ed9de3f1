"""Kernel parameters of the container's own namespaces."""

from __future__ import annotations

from pathlib import Path

from longshore.errors import InvalidParameter
from longshore.oci.input import SpecInput
from longshore.oci.namespaces import remapped
from longshore.types.container import HostConfig


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


_IPC = {
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
}


def check_sysctls(host_config: HostConfig) -> None:
    """Only what a namespace of the container's own holds may be set. Raises InvalidParameter."""
    for name in host_config.Sysctls or {}:
        text = name.replace("/", ".")
        if text in _IPC or text.startswith("fs.mqueue."):
            if host_config.IpcMode == "host":
                raise InvalidParameter(f'sysctl "{name}" not allowed in host ipc namespace')
        elif text.startswith("net."):
            if host_config.NetworkMode == "host":
                raise InvalidParameter(f'sysctl "{name}" not allowed in host network namespace')
        elif text in ("kernel.domainname", "kernel.hostname"):
            if host_config.UTSMode == "host":
                raise InvalidParameter(f'sysctl "{name}" not allowed in host uts namespace')
        elif not text.startswith("user."):
            raise InvalidParameter(f'sysctl "{name}" is not in a separate kernel namespace')
