"""Which namespaces a container has for itself, shares, or lacks; see namespaces(7)."""

from __future__ import annotations

from typing import Any

from longshore.linux.host import HostFacts
from longshore.oci.input import IDMap, SpecInput


def namespaces(container: SpecInput, host: HostFacts) -> list[dict[str, str]]:
    """The `linux.namespaces` list."""
    result = [{"type": "mount"}]
    shared = {
        "network": container.network_namespace,
        "uts": container.uts_namespace,
        "pid": container.pid_namespace,
        "ipc": container.ipc_namespace,
    }
    for kind, where in shared.items():
        if where is None:
            result.append({"type": kind})
        elif where != "host":
            result.append({"type": kind, "path": where})
    if remapped(container):
        # A namespace that is joined can only be entered through the user namespace that owns it.
        user = {"type": "user"}
        if container.user_namespace not in (None, "host"):
            user["path"] = str(container.user_namespace)
        result.append(user)
    if _private_cgroup(container, host):
        result.append({"type": "cgroup"})
    return result


def id_mappings(container: SpecInput) -> dict[str, list[dict[str, int]]]:
    """`uidMappings` and `gidMappings` of the user namespace, also of a joined one; empty without one."""
    if not remapped(container):
        return {}
    return {
        "uidMappings": [_mapping(entry) for entry in container.uid_mappings],
        "gidMappings": [_mapping(entry) for entry in container.gid_mappings],
    }


def remapped(container: SpecInput) -> bool:
    """Whether the container's root is not the host's."""
    if container.user_namespace == "host" or container.host_config.UsernsMode == "host":
        return False
    return bool(container.uid_mappings) or container.user_namespace is not None


def _private_cgroup(container: SpecInput, host: HostFacts) -> bool:
    mode = container.host_config.CgroupnsMode
    if not mode:
        mode = "private" if host.unified and not container.host_config.Privileged else "host"
    return mode == "private" and host.cgroup_namespaces


def _mapping(entry: IDMap) -> dict[str, Any]:
    return {"containerID": entry.container_id, "hostID": entry.host_id, "size": entry.size}
