"""The OCI runtime specification of a container, as dockerd would write it.

Follows moby's daemon/oci_linux.go and oci/defaults.go. https://github.com/opencontainers/runtime-spec
"""

from __future__ import annotations

from typing import Any

import msgspec

from longshore.errors import InvalidParameter, System
from longshore.linux.host import HostFacts
from longshore.oci import defaults
from longshore.oci.apparmor import apparmor_profile
from longshore.oci.capabilities import process_capabilities
from longshore.oci.devices import container_devices, device_cgroup_rules
from longshore.oci.input import SpecInput
from longshore.oci.mounts import container_mounts
from longshore.oci.namespaces import id_mappings, namespaces
from longshore.oci.process import arguments, environment, uses_init
from longshore.oci.resources import cgroups_path, resources
from longshore.oci.rlimits import rlimits
from longshore.oci.seccomp import seccomp
from longshore.oci.security_options import parse_security_options
from longshore.oci.sysctls import sysctls
from longshore.oci.users import resolve_user


def create_spec(container: SpecInput, host: HostFacts) -> dict[str, Any]:
    """The specification of `container` on `host`, as plain JSON values.

    Reads the root file system's passwd and group, device nodes that are asked for, and the host's mounts
    where a bind is to propagate; changes nothing. Raises System for settings that cannot be followed: by
    the time of a start that is no longer the request's fault.
    """
    try:
        return _create_spec(container, host)
    except InvalidParameter as exc:
        raise System(exc.message) from exc


def encode_spec(spec: dict[str, Any]) -> bytes:
    """The bytes of config.json."""
    return msgspec.json.encode(spec)


def _create_spec(container: SpecInput, host: HostFacts) -> dict[str, Any]:
    config, host_config = container.config, container.host_config
    security = parse_security_options(host_config.SecurityOpt)
    mounts, rootfs_propagation = container_mounts(container, host)
    user = resolve_user(container.rootfs, config.User, host_config.GroupAdd or [])
    capabilities = process_capabilities(host_config, host, root=user["uid"] == 0)
    process: dict[str, Any] = {
        "terminal": config.Tty,
        "user": user,
        "args": arguments(container),
        "env": environment(container),
        "cwd": config.WorkingDir or "/",
        "capabilities": capabilities,
        "oomScoreAdj": _oom_score_adj(host_config.OomScoreAdj, host),
        "noNewPrivileges": _first_set(security.no_new_privileges, container.no_new_privileges),
    }
    if config.Tty and any(host_config.ConsoleSize or []):
        height, width = host_config.ConsoleSize
        process["consoleSize"] = {"height": height, "width": width}
    if limits := rlimits(host_config, container.default_ulimits, host):
        process["rlimits"] = limits
    if profile := apparmor_profile(container, security.apparmor, host):
        process["apparmorProfile"] = profile
    if container.process_label:
        process["selinuxLabel"] = container.process_label
    if uses_init(container):
        mounts.append(_init_mount(container, host))

    linux: dict[str, Any] = {
        "namespaces": namespaces(container, host),
        "devices": container_devices(host_config),
        "resources": _resources(container, host),
        "cgroupsPath": cgroups_path(container, host),
        "sysctl": sysctls(container),
        **id_mappings(container),
    }
    if rootfs_propagation:
        linux["rootfsPropagation"] = rootfs_propagation
    if container.mount_label:
        linux["mountLabel"] = container.mount_label
    if not host_config.Privileged:
        linux["maskedPaths"] = _first_set(host_config.MaskedPaths, defaults.masked_paths())
        linux["readonlyPaths"] = _first_set(host_config.ReadonlyPaths, defaults.READONLY_PATHS)
    granted = frozenset(capabilities["bounding"])
    if filters := seccomp(container, security.seccomp, host, granted):
        linux["seccomp"] = filters

    spec: dict[str, Any] = {
        "ociVersion": defaults.OCI_VERSION,
        "process": process,
        "root": {"path": str(container.rootfs), "readonly": host_config.ReadonlyRootfs},
        "mounts": mounts,
        "linux": linux,
    }
    if container.uts_namespace is None:
        spec["hostname"] = container.hostname or config.Hostname
    if host_config.Annotations:
        spec["annotations"] = dict(host_config.Annotations)
    if host_config.DeviceRequests:
        from longshore.oci.device_requests import inject_requested_devices

        inject_requested_devices(spec, host_config.DeviceRequests, container.cdi_spec_dirs)
    return spec


def _resources(container: SpecInput, host: HostFacts) -> dict[str, Any]:
    limits = resources(container.host_config, host)
    if limits.get("pids", {}).get("limit") == -1:
        # A new cgroup has no limit anyway, and crun before 1.9 writes the number as it stands.
        del limits["pids"]
    return {**limits, "devices": device_cgroup_rules(container.host_config)}


def _oom_score_adj(wanted: int, host: HostFacts) -> int:
    # Without CAP_SYS_RESOURCE the kernel lets nobody go below his own score (proc(5)).
    if host.has_capability("CAP_SYS_RESOURCE"):
        return wanted
    return max(wanted, host.oom_score_adj)


def _init_mount(container: SpecInput, host: HostFacts) -> dict[str, Any]:
    source = container.init_path or host.init_path
    if not source:
        raise System("no docker-init or tini found on this machine: install one, or set init-path")
    return {
        "destination": defaults.INIT_IN_CONTAINER,
        "type": "bind",
        "source": source,
        "options": ["bind", "ro"],
    }


def _first_set(value: Any, default: Any) -> Any:
    return default if value is None else value
