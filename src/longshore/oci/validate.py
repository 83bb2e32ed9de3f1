"""Is what was asked for right, and can this host do it? Settings it cannot follow are taken out, and said.

Follows moby's daemon/container.go, daemon/daemon_unix.go and runconfig, messages included.
"""

from __future__ import annotations

from collections.abc import Collection

from longshore.errors import InvalidParameter
from longshore.linux.capabilities import normalize
from longshore.linux.host import HostFacts
from longshore.oci import defaults
from longshore.oci.devices import parse_device_cgroup_rule
from longshore.oci.mount_spec import mount_requests, parse_volumes_from
from longshore.oci.security_options import parse_security_options
from longshore.oci.sysctls import check_sysctls
from longshore.oci.validate_config import verify_config, verify_port_bindings
from longshore.oci.validate_network import verify_dns, verify_extra_hosts, verify_network_mode
from longshore.oci.validate_resources import verify_resources
from longshore.types.container import Config, HostConfig, RestartPolicy

DEFAULT_SHM_SIZE = 64 << 20


def adapt_host_config(
    host_config: HostConfig,
    host: HostFacts,
    *,
    default_shm_size: int = DEFAULT_SHM_SIZE,
    default_ipc_mode: str = "private",
    default_cgroupns_mode: str = "",
) -> None:
    """Fill in, in place, what the user left open: moby's adaptContainerSettings."""
    if host_config.Memory > 0 and host_config.MemorySwap == 0:
        host_config.MemorySwap = host_config.Memory * 2
    if host_config.ShmSize == 0:
        host_config.ShmSize = default_shm_size
    if not host_config.IpcMode:
        host_config.IpcMode = default_ipc_mode
    if not host_config.CgroupnsMode:
        private = host.unified and not host_config.Privileged
        host_config.CgroupnsMode = default_cgroupns_mode or ("private" if private else "host")
    if host_config.Privileged or "host" in (host_config.IpcMode, host_config.PidMode):
        given = host_config.SecurityOpt or []
        if not any(option.startswith("label") for option in given):
            host_config.SecurityOpt = [*given, "label=disable"]
    if host_config.OomKillDisable is None and host.oom_kill_disable:
        host_config.OomKillDisable = False
    if not host_config.Privileged:
        if host_config.MaskedPaths is None:
            host_config.MaskedPaths = defaults.masked_paths()
        if host_config.ReadonlyPaths is None:
            host_config.ReadonlyPaths = list(defaults.READONLY_PATHS)


def verify_host_config(
    host_config: HostConfig,
    host: HostFacts,
    *,
    config: Config | None = None,
    runtimes: Collection[str] = (),
    update: bool = False,
    remapped: bool = False,
) -> list[str]:
    """Check everything; take out what this host cannot do, with a warning for each.

    `config` None leaves the portable part unchecked (an update has none), empty `runtimes` any runtime.
    Raises InvalidParameter.
    """
    if config is not None:
        verify_config(config)
        verify_network_mode(config, host_config)
        mount_requests(config, host_config)
    _verify_common(host_config)
    warnings = verify_resources(host_config, host, update=update)
    _verify_namespaces(host_config, host, remapped=remapped)
    if not -1000 <= host_config.OomScoreAdj <= 1000:
        raise InvalidParameter(
            f"Invalid value {host_config.OomScoreAdj}, range for oom score adj is [-1000, 1000]"
        )
    if runtimes and host_config.Runtime and host_config.Runtime not in runtimes:
        raise InvalidParameter(f"unknown or invalid runtime name: {host_config.Runtime}")
    parent = host_config.CgroupParent
    if parent and host.cgroup_driver == "systemd" and not (parent.endswith(".slice") and "/" not in parent):
        raise InvalidParameter(
            'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'
        )
    if not host.ipv4_forwarding and host_config.NetworkMode not in ("host", "none"):
        warnings.append("IPv4 forwarding is disabled. Networking will not work.")
    if host_config.NetworkMode == "host" and host_config.PortBindings:
        warnings.append("Published ports are discarded when using host network mode")
    return warnings


def verify_restart_policy(policy: RestartPolicy) -> None:
    """Raises InvalidParameter with moby's messages."""
    count = policy.MaximumRetryCount
    if policy.Name in ("always", "no", "unless-stopped", ""):
        if count != 0:
            text = "invalid restart policy: maximum retry count can only be used with 'on-failure'"
            raise InvalidParameter(text + (" and cannot be negative" if count < 0 else ""))
    elif policy.Name == "on-failure":
        if count < 0:
            raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    else:
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{policy.Name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )


def _verify_common(host_config: HostConfig) -> None:
    if host_config.AutoRemove and host_config.RestartPolicy.Name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")
    verify_extra_hosts(host_config.ExtraHosts)
    verify_dns(host_config.Dns)
    verify_port_bindings(host_config.PortBindings)
    verify_restart_policy(host_config.RestartPolicy)
    normalize(host_config.CapAdd or [])
    normalize(host_config.CapDrop or [])
    if host_config.Isolation not in ("", "default"):
        raise InvalidParameter(f"invalid isolation '{host_config.Isolation}' on linux")
    if "" in (host_config.Annotations or {}):
        raise InvalidParameter("invalid Annotations: the empty string is not permitted as an annotation key")
    for text in host_config.VolumesFrom or []:
        parse_volumes_from(text)
    for rule in host_config.DeviceCgroupRules or []:
        parse_device_cgroup_rule(rule)
    parse_security_options(host_config.SecurityOpt)
    check_sysctls(host_config)
    if host_config.ShmSize < 0:
        raise InvalidParameter("SHM size can not be less than 0")


def _verify_namespaces(host_config: HostConfig, host: HostFacts, *, remapped: bool) -> None:
    ipc, pid = host_config.IpcMode, host_config.PidMode
    if ipc not in ("", "none", "private", "host", "shareable") and not _of_container(ipc):
        raise InvalidParameter(f"invalid IPC mode: {ipc}")
    if pid not in ("", "host") and not _of_container(pid):
        raise InvalidParameter(f"invalid PID mode: {pid}")
    if host_config.UTSMode not in ("", "host"):
        raise InvalidParameter(f"invalid UTS mode: {host_config.UTSMode}")
    if host_config.UsernsMode not in ("", "host"):
        raise InvalidParameter(f"invalid user namespace mode: {host_config.UsernsMode}")
    mode = host_config.CgroupnsMode
    if mode not in ("", "host", "private"):
        raise InvalidParameter(f"invalid cgroup namespace mode: {mode}")
    if mode == "private" and not host.cgroup_namespaces:
        raise InvalidParameter(
            "Your kernel does not support cgroup namespaces.  Cgroup namespace mode must be set to 'host'"
        )
    if remapped and host_config.UsernsMode != "host":
        if host_config.Privileged:
            raise InvalidParameter(
                "privileged mode is incompatible with user namespaces.  You must run the container in "
                "the host namespace when running privileged mode"
            )
        for kind, value in (("network", host_config.NetworkMode), ("PID", pid)):
            if value == "host":
                name = "host's network" if kind == "network" else "host PID"
                raise InvalidParameter(f"cannot share the {name} namespace when user namespaces are enabled")


def _of_container(mode: str) -> bool:
    kind, _, name = mode.partition(":")
    return kind == "container" and bool(name)
