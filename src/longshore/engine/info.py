"""docker info: the engine, its containers and its host on one page."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longshore import __version__
from longshore.engine.version import program_version
from longshore.logs.driver import log_driver_names
from longshore.types.codec import to_plain
from longshore.types.system import (
    AddressPool,
    Commit,
    ContainerdInfo,
    ContainerdNamespaces,
    DeviceInfo,
    FirewallInfo,
    IndexInfo,
    PluginsInfo,
    RuntimeInfo,
    ServiceConfig,
    SystemInfo,
)
from longshore.types.timestamp import now

if TYPE_CHECKING:
    from longshore.engine.engine import Engine

_LOOPBACK = ["::1/128", "127.0.0.0/8"]
"""Registries there are never asked for a certificate."""


async def system_info(engine: Engine) -> SystemInfo:
    """GET /info"""
    config, host = engine.config, engine.host
    states = [container.state for container in engine.containers]
    paused = sum(state.Paused for state in states)
    running = sum(state.Running and not state.Paused for state in states)
    init = Path(config.init_path or host.init_path).name or "docker-init"
    containerd, runc, obstacles = await asyncio.gather(
        asyncio.to_thread(program_version, "containerd"),
        asyncio.to_thread(program_version, "runc"),
        asyncio.to_thread(engine.networks.firewall_obstacles),
    )
    return SystemInfo(
        ID=engine.id,
        Containers=len(states),
        ContainersRunning=running,
        ContainersPaused=paused,
        ContainersStopped=len(states) - running - paused,
        Images=len(engine.images.images.all()),
        Driver=engine.layers.driver_name,
        DriverStatus=[list(pair) for pair in engine.layers.status()],
        Plugins=PluginsInfo(
            list(engine.volumes.drivers()), engine.networks.drivers.names(), None, log_driver_names()
        ),
        MemoryLimit=host.memory_limit,
        SwapLimit=host.swap_limit,
        CpuCfsPeriod=host.cpu_cfs,
        CpuCfsQuota=host.cpu_cfs,
        CPUShares=host.cpu_shares,
        CPUSet=host.cpuset,
        PidsLimit=host.pids_limit,
        IPv4Forwarding=_is_on("/proc/sys/net/ipv4/ip_forward"),
        Debug=config.debug,
        NFd=_count("/proc/self/fd"),
        OomKillDisable=host.oom_kill_disable,
        NGoroutines=len(asyncio.all_tasks()),
        SystemTime=now(),
        LoggingDriver=config.log_driver,
        CgroupDriver=host.cgroup_driver,
        CgroupVersion=host.cgroup_version,
        NEventsListener=engine.events.listeners,
        KernelVersion=host.kernel_version,
        OperatingSystem=host.operating_system,
        OSVersion=host.os_version,
        Architecture=host.architecture,
        RegistryConfig=_registries(engine),
        NCPU=host.cpus,
        MemTotal=host.memory_total,
        DockerRootDir=config.data_root,
        HttpProxy=_proxy("HTTP_PROXY"),
        HttpsProxy=_proxy("HTTPS_PROXY"),
        NoProxy=_proxy("NO_PROXY"),
        Name=host.hostname,
        Labels=list(config.labels),
        ExperimentalBuild=config.experimental,
        ServerVersion=__version__,
        Runtimes=_runtimes(engine),
        DefaultRuntime=config.default_runtime,
        LiveRestoreEnabled=config.live_restore,
        InitBinary=init,
        ContainerdCommit=Commit(containerd[1] if containerd else ""),
        RuncCommit=Commit(runc[1] if runc else ""),
        SecurityOptions=_security_options(engine),
        DefaultAddressPools=[AddressPool(pool.base, pool.size) for pool in config.default_address_pools]
        or None,
        FirewallBackend=FirewallInfo("nftables"),
        Containerd=ContainerdInfo(
            config.containerd,
            ContainerdNamespaces(config.containerd_namespace, config.containerd_plugin_namespace),
        ),
        CDISpecDirs=list(config.cdi_directories),
        DiscoveredDevices=await asyncio.to_thread(_discovered_devices, config.cdi_directories),
        Warnings=_warnings(engine, obstacles) or None,
    )


def as_of_version(info: SystemInfo, version: tuple[int, ...]) -> dict[str, Any]:
    """The answer as clients of an older API version know it."""
    plain: dict[str, Any] = to_plain(info)
    if version < (1, 50):
        plain |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
        plain.pop("DiscoveredDevices", None)
    if version < (1, 49):
        plain.pop("FirewallBackend", None)
        for commit in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            plain[commit]["Expected"] = plain[commit]["ID"]
        plain["RegistryConfig"] |= {
            "AllowNondistributableArtifactsCIDRs": [],
            "AllowNondistributableArtifactsHostnames": [],
        }
    if version < (1, 46):
        plain.pop("Containerd", None)
    if version < (1, 44):
        plain.pop("CDISpecDirs")
        plain["SecurityOptions"] = [
            option.replace("profile=builtin", "profile=default") for option in plain["SecurityOptions"]
        ]
    if version < (1, 42):
        plain |= {"KernelMemory": False, "KernelMemoryTCP": False}
    return plain


def _discovered_devices(directories: list[str]) -> list[DeviceInfo] | None:
    if not any(Path(directory).is_dir() for directory in directories):
        return None
    from longshore.oci.cdi import cdi_devices

    return [DeviceInfo("cdi", name) for name in sorted(cdi_devices(directories))] or None


def _registries(engine: Engine) -> ServiceConfig:
    config = engine.config
    mirrors = [mirror.rstrip("/") + "/" for mirror in config.registry_mirrors]
    indexes = {"docker.io": IndexInfo("docker.io", mirrors, True, True)}
    cidrs = list(_LOOPBACK)
    for registry in config.insecure_registries:
        if "/" in registry:
            cidrs.append(registry)
        else:
            indexes[registry] = IndexInfo(registry, [], False, False)
    return ServiceConfig(InsecureRegistryCIDRs=cidrs, IndexConfigs=indexes, Mirrors=mirrors)


def _runtimes(engine: Engine) -> dict[str, RuntimeInfo]:
    found = {name: RuntimeInfo("runc") for name in ("io.containerd.runc.v2", "runc")}
    for name, runtime in engine.config.runtimes.items():
        found[name] = RuntimeInfo(runtime.path or runtime.type, list(runtime.runtime_args) or None)
    return found


def _security_options(engine: Engine) -> list[str]:
    options = []
    if engine.host.apparmor:
        options.append("name=apparmor")
    if engine.host.seccomp:
        options.append(f"name=seccomp,profile={engine.config.seccomp_profile or 'builtin'}")
    if engine.host.cgroup_namespaces and engine.host.unified:
        options.append("name=cgroupns")
    if engine.config.no_new_privileges:
        options.append("name=no-new-privileges")
    return options


def _warnings(engine: Engine, obstacles: list[str]) -> list[str]:
    """What is missing or dangerous, worded as dockerd words it where it has the same to say."""
    config, host = engine.config, engine.host
    warnings = []
    for listener in config.hosts:
        if listener.startswith("tcp://") and not config.tlsverify:
            how = "without TLS client verification" if config.tls else "without encryption"
            warnings.append(
                f"[DEPRECATION NOTICE]: API is accessible on {listener.replace('tcp', 'http')} {how}.\n"
                "         Access to the remote API is equivalent to root access on the host. Refer\n"
                "         to the 'Docker daemon attack surface' section in the documentation for\n"
                "         more information: https://docs.docker.com/go/attack-surface/"
            )
    missing = {
        "memory limit": host.memory_limit,
        "swap limit": host.swap_limit,
        "cpu cfs quota": host.cpu_cfs,
        "cpu cfs period": host.cpu_cfs,
        "cpu shares": host.cpu_shares,
        "cpuset": host.cpuset,
        "pids limit": host.pids_limit,
    }
    warnings += [f"WARNING: No {what} support" for what, there in missing.items() if not there]
    if host.cgroup_mode != "v2":
        warnings.append("WARNING: Support for cgroup v1 is deprecated")
    if not _is_on("/proc/sys/net/ipv4/ip_forward"):
        warnings.append("WARNING: IPv4 forwarding is disabled")
    if not host.has_capability("CAP_SYS_RESOURCE"):
        warnings.append("WARNING: The daemon lacks CAP_SYS_RESOURCE: limits above its own cannot be raised")
    warnings += [f"WARNING: {obstacle}" for obstacle in obstacles]
    return warnings


def _is_on(path: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(path).read_text().strip() == "1"
    return False


def _count(directory: str) -> int:
    return len(os.listdir(directory))  # noqa: PTH208 - names are all that is needed


def _proxy(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.lower(), "")
