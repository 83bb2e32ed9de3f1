"""Build the engine's parts from the configuration."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.config import Config
from longshore.containers.store import ContainerStore
from longshore.engine.engine import Engine
from longshore.engine.userns import NOT_REMAPPED, Remapping
from longshore.errors import InvalidParameter
from longshore.events import EventBus
from longshore.images.service import ImageService
from longshore.layers.store import LayerStore
from longshore.linux.host import HostFacts, discover
from longshore.logs.pump import LogPump
from longshore.network.config import NetworkConfig
from longshore.network.controller import NetworkController
from longshore.runtime.containerd import ContainerdRuntime
from longshore.tracing import TraceStore
from longshore.volumes.service import VolumeService

if TYPE_CHECKING:
    from longshore.plugins import Plugin

DEFAULT_EXEC_ROOT = "/var/run/docker"
DEFAULT_BRIDGE = "docker0"

log = logging.getLogger(__name__)


async def build_engine(config: Config, identity: str, remapping: Remapping = NOT_REMAPPED) -> Engine:
    """Every part, ready to be restored; containerd is started or found.

    Raises EngineError or OSError if a part cannot be had: nothing has been changed then but directories.
    """
    root, exec_root = Path(config.data_root), Path(config.exec_root)
    seccomp = _seccomp_profile(config)
    host, layers = await asyncio.gather(
        asyncio.to_thread(discover, _cgroup_driver(config)),
        asyncio.to_thread(
            LayerStore,
            root,
            config.storage_driver or None,
            remapping.uids,
            remapping.gids,
            storage_options=config.storage_opts,
        ),
    )
    _warn_of_limits(host)
    if host.unified and (config.cpu_rt_period or config.cpu_rt_runtime):
        raise InvalidParameter(
            "daemon-scoped cpu-rt-period and cpu-rt-runtime are not implemented for cgroup v2"
        )
    if config.ip_forward:
        host = replace(host, ipv4_forwarding=True)  # The network controller sees to it.
    events = EventBus()
    loop = asyncio.get_running_loop()

    def volume_event(action: str, name: str, attributes: dict[str, str]) -> None:
        # Volumes are removed in threads; listeners belong to the loop.
        loop.call_soon_threadsafe(events.publish, "volume", action, name, attributes)

    # Before containerd is looked for: this is where a dockerd on the same root is noticed.
    volumes = await asyncio.to_thread(VolumeService, root / "volumes", volume_event, remapping.root)
    runtime = ContainerdRuntime(
        exec_root / "containerd",
        root / "containerd/daemon",  # dockerd's, so that what runs under either is known to the other.
        config.containerd or None,
        config.containerd_namespace,
        logging.getLogger("containerd"),
        debug=config.debug,
    )
    await runtime.connect()
    return Engine(
        config=config,
        host=host,
        id=identity,
        containers=ContainerStore(root / "containers"),
        images=await asyncio.to_thread(ImageService, root, layers),
        layers=layers,
        volumes=volumes,
        networks=NetworkController(network_config(config)),
        runtime=runtime,
        pump=LogPump(),
        events=events,
        traces=TraceStore(),
        seccomp_profile=seccomp,
        remapping=remapping,
    )


def network_config(config: Config) -> NetworkConfig:
    """The network controller's part of the configuration.

    An engine on another exec root than the default has a bridge and a firewall table of its own, so that
    several can live on one machine.
    """
    instance = ""
    if Path(config.exec_root) != Path(DEFAULT_EXEC_ROOT):
        instance = hashlib.sha256(str(Path(config.exec_root).absolute()).encode()).hexdigest()[:6]
    return NetworkConfig(
        data_root=Path(config.data_root),
        exec_root=Path(config.exec_root),
        instance=instance,
        bridge_name=config.bridge or (f"lsh-{instance}" if instance else DEFAULT_BRIDGE),
        bip=config.bip or None,
        fixed_cidr=config.fixed_cidr or None,
        default_gateway=config.default_gateway or None,
        mtu=config.mtu or 1500,
        icc=config.icc,
        ip_forward=config.ip_forward,
        ip_masq=config.ip_masq,
        default_ip=config.ip,
        default_address_pools=[(pool.base, pool.size) for pool in config.default_address_pools],
        host_gateway_ips=config.host_gateway_ips,
        dns=config.dns,
        dns_opts=config.dns_opts,
        dns_search=config.dns_search,
        firewall=config.iptables,
        firewall_ipv6=config.ip6tables,
        ipv6=config.ipv6,
        bip6=config.bip6 or None,
        fixed_cidr_v6=config.fixed_cidr_v6 or None,
        default_gateway_v6=config.default_gateway_v6 or None,
        default_network_opts=config.default_network_opts,
        userland_proxy=config.userland_proxy,
        warm_sandboxes=max(config.warm_sandboxes, 0),
        live_restore=config.live_restore,
        allow_direct_routing=config.allow_direct_routing,
        plugin=_plugin,
    )


def _plugin(name: str) -> Plugin:
    from longshore.plugins import plugin_of

    return plugin_of(name)


def _cgroup_driver(config: Config) -> str:
    """Empty, the host's natural one, unless exec-opts say otherwise."""
    named = any(option.startswith("native.cgroupdriver=") for option in config.exec_opts)
    return config.cgroup_driver if named else ""


def _seccomp_profile(config: Config) -> str:
    if config.seccomp_profile in ("", "builtin", "unconfined"):
        return config.seccomp_profile
    try:
        return Path(config.seccomp_profile).read_text()
    except OSError as exc:
        raise InvalidParameter(
            f"opening seccomp profile ({config.seccomp_profile}) failed: {exc.strerror}"
        ) from exc


def _warn_of_limits(host: HostFacts) -> None:
    missing = [name for name in ("CAP_SYS_ADMIN", "CAP_NET_ADMIN") if not host.has_capability(name)]
    if missing:
        raise InvalidParameter(f"the daemon needs to be root, and lacks {', '.join(missing)}")
    if not host.has_capability("CAP_SYS_RESOURCE"):
        log.warning("this machine withholds CAP_SYS_RESOURCE: limits and OOM scores can only be tightened")
