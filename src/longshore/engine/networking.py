"""A container's network: initializeNetworking, allocateNetwork and connectToNetwork of Docker's daemon.

The four modes: `container:NAME` shares another container's sandbox, files and host name; `host` takes the
machine's; `none` gets loopback alone; `bridge` and named networks get an endpoint on each network, the
default network first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from longshore.containers.container import Container
from longshore.containers.record import RecordEndpoint, ipam_config
from longshore.engine.engine import Engine
from longshore.engine.links import link_firewall, links_of, parse_link, tell_linking_containers
from longshore.engine.ports import exposed_ports, port_bindings, port_map
from longshore.errors import Conflict, EngineError, InvalidParameter, NotFound
from longshore.network.endpoint import Endpoint, EndpointOptions
from longshore.network.network import Network
from longshore.network.sandbox import Sandbox
from longshore.network.sandbox_record import SandboxOptions
from longshore.tracing import span

DEFAULT_NETWORK = "bridge"

log = logging.getLogger(__name__)


def network_mode(container: Container) -> str:
    """The mode with its default filled in."""
    mode = container.host_config.NetworkMode
    return DEFAULT_NETWORK if mode in ("", "default") else mode


def joined_container(container: Container) -> str:
    """The name or id in `container:NAME`; empty for other modes."""
    kind, _, name = network_mode(container).partition(":")
    return name if kind == "container" else ""


def network_of_user_namespace(engine: Engine, container: Container) -> bool:
    """Whether the network namespace must be made by the runtime.

    A remapped container must own its network namespace, or it can neither set sysctls nor mount sysfs; the
    kernel gives it to the user namespace of whoever unshares it, so the runtime has to.
    """
    return engine.is_remapped(container.host_config) and not joined_container(container)


def prepare_network_files(engine: Engine, container: Container) -> None:
    """Make the files that are mounted before a network that comes late can fill them."""
    record = container.record
    record.HostnamePath, record.HostsPath, record.ResolvConfPath = (
        str(container.root / name) for name in ("hostname", "hosts", "resolv.conf")
    )
    for path in (record.HostnamePath, record.HostsPath, record.ResolvConfPath):
        Path(path).touch(mode=0o644)
        os.chown(path, *engine.remapping.root)


async def initialize_networking(engine: Engine, container: Container, namespace_of: int | None = None) -> str:
    """Make what the container's network lives in. Returns the path of its namespace, or "host".

    `connect_networks` then connects it, which can go on beside the runtime's work. `namespace_of`: a process
    whose network namespace is taken instead of a new one.
    """
    if joined_container(container):
        return _share_network(engine, container)
    mode = network_mode(container)
    if mode == "host" and not container.config.Hostname:
        container.config.Hostname = socket.gethostname()
    files = container.root
    container.record.HostsPath = str(files / "hosts")
    container.record.ResolvConfPath = str(files / "resolv.conf")
    sandbox, _ = await asyncio.gather(
        allocate_network(engine, container, namespace_of), build_hostname_file(container)
    )
    return "host" if mode == "host" else str(sandbox.key)


def _share_network(engine: Engine, container: Container) -> str:
    """Use the sandbox, the files and the name of the container that is joined."""
    other = networked_container(engine, container)
    container.record.HostnamePath = other.record.HostnamePath
    container.record.HostsPath = other.record.HostsPath
    container.record.ResolvConfPath = other.record.ResolvConfPath
    container.config.Hostname = other.config.Hostname
    container.config.Domainname = other.config.Domainname
    if network_mode(other) == "host":
        return "host"
    sandbox = engine.networks.sandbox(other.id)
    if sandbox is None:
        raise Conflict(f"cannot join network of a non running container: {other.id}")
    return str(sandbox.key)


def networked_container(engine: Engine, container: Container) -> Container:
    """The running container whose network is joined, through any number of hops.

    Raises InvalidParameter for a container that joins itself, NotFound, Conflict if it does not run.
    """
    other = engine.containers.get(joined_container(container))
    if other is container:
        raise InvalidParameter("cannot join own network")
    if not other.state.Running:
        raise Conflict(f"cannot join network of a non running container: {other.id}")
    if other.state.Restarting:
        raise Conflict(f"container {other.id} is restarting, wait until the container is running")
    if joined_container(other):
        return networked_container(engine, other)
    return other


async def build_hostname_file(container: Container) -> None:
    """Write `hostname`, which is mounted at /etc/hostname."""
    path = container.root / "hostname"
    container.record.HostnamePath = str(path)
    await asyncio.to_thread(_write_plain, path, f"{container.config.Hostname}\n".encode())


def _write_plain(path: Path, content: bytes) -> None:
    # In place: a running container has this very inode mounted.
    with path.open("wb") as file:
        file.write(content)
    path.chmod(0o644)


async def allocate_network(engine: Engine, container: Container, namespace_of: int | None) -> Sandbox:
    """Make the sandbox, after any stale one of the same id."""
    settings = container.networks
    if not settings.Networks:
        update_network_settings(engine, container)
    with span("sandbox"):
        sandbox = await engine.networks.create_sandbox(
            container.id, sandbox_options(engine, container, namespace_of)
        )
    settings.SandboxID, settings.SandboxKey = sandbox.id, str(sandbox.key)
    settings.Ports = {}
    return sandbox


async def connect_networks(engine: Engine, container: Container) -> None:
    """Connect the container's sandbox to its networks and publish its ports. Raises as Sandbox.join does."""
    sandbox = engine.networks.sandbox(container.id)
    if joined_container(container) or sandbox is None:
        return
    networks, mode = container.networks.Networks or {}, network_mode(container)
    # The default network first: links live on it, and hosts and resolv.conf are laid out by it.
    order = sorted(networks, key=lambda name: (name != DEFAULT_NETWORK, name != mode, name))
    publishing = publishing_network(engine, networks, order)
    for name in order:
        with span(f"connect {name}"):
            await connect_to_network(engine, container, sandbox, name, publish=name == publishing)
    note_ports(container, sandbox)
    await link_firewall(engine, container)
    await tell_linking_containers(engine, container)


def publishing_network(engine: Engine, networks: Mapping[str, RecordEndpoint], order: list[str]) -> str:
    """The network that will be the way out, so that no port has to move while the container starts."""
    by_priority = sorted(networks, key=lambda name: (-networks[name].GwPriority, name))
    for name in by_priority:
        with contextlib.suppress(EngineError):
            network = find_network(engine, name, networks[name].NetworkID)
            if network.behaviour.addressed and not network.internal:
                return name
    return order[0] if order else ""


def note_ports(container: Container, sandbox: Sandbox) -> None:
    """Record where the container's ports are published now."""
    ports = [port for endpoint in sandbox.endpoints for port in endpoint.ports]
    container.networks.Ports = port_map(container, ports) if sandbox.endpoints else {}


def update_network_settings(engine: Engine, container: Container) -> None:
    """Fill in the networks of a container that was made without any: the one its mode names."""
    if container.config.NetworkDisabled or joined_container(container):
        return
    network = engine.networks.network(network_mode(container))
    container.networks.Networks = {network.name: RecordEndpoint(NetworkID=network.id)}


async def connect_to_network(
    engine: Engine, container: Container, sandbox: Sandbox, name: str, *, publish: bool
) -> Endpoint:
    """Join one network with the settings asked for, and note what came of it."""
    networks = container.networks.Networks
    assert networks is not None
    settings = networks[name]
    network = find_network(engine, name, settings.NetworkID)
    endpoint = await sandbox.join(network, _endpoint_options(engine, container, network, settings, publish))
    _record_endpoint(container, network, settings, endpoint)
    engine.events.publish(
        "network",
        "connect",
        network.id,
        {"container": container.id, "name": network.name, "type": network.driver},
    )
    return endpoint


def find_network(engine: Engine, name: str, id: str) -> Network:
    """The network by name, or by its id where it has been given another name since."""
    try:
        return engine.networks.network(name)
    except NotFound:
        if id:
            return engine.networks.network(id)
        raise


def sandbox_options(engine: Engine, container: Container, namespace_of: int | None) -> SandboxOptions:
    host_config, config = container.host_config, container.config
    daemon = engine.config
    on_default = DEFAULT_NETWORK in (container.networks.Networks or {})
    return SandboxOptions(
        host=network_mode(container) == "host",
        namespace_of=namespace_of,
        hostname=config.Hostname,
        domainname=config.Domainname,
        hosts_path=Path(container.record.HostsPath),
        resolv_conf_path=Path(container.record.ResolvConfPath),
        extra_hosts=list(host_config.ExtraHosts or []),
        dns=list(host_config.Dns or daemon.dns),
        dns_search=list(host_config.DnsSearch or daemon.dns_search),
        dns_options=list(host_config.DnsOptions or daemon.dns_opts),
        links=links_of(engine, container) if on_default else [],
        exposed=exposed_ports(container),
    )


def _endpoint_options(
    engine: Engine, container: Container, network: Network, settings: RecordEndpoint, publish: bool
) -> EndpointOptions:
    del engine
    wanted = ipam_config(settings)
    aliases = list(settings.Aliases or [])
    settings.DNSNames = dns_names(container, network, settings)
    return EndpointOptions(
        name=container.name,
        mac_address=settings.DesiredMacAddress or container.config.MacAddress,
        ipv4_address=wanted.IPv4Address,
        ipv6_address=wanted.IPv6Address,
        aliases=aliases,
        dns_names=settings.DNSNames or [],
        driver_opts=dict(settings.DriverOpts or {}),
        gw_priority=settings.GwPriority,
        link_local_addresses=list(wanted.LinkLocalIPs or []),
        links=dict(_aliased_links(settings)),
        port_bindings=port_bindings(container) if publish else [],
    )


def dns_names(container: Container, network: Network, settings: RecordEndpoint) -> list[str] | None:
    """The names that neighbours know the container by; none on the predefined networks."""
    if network.name in (DEFAULT_NETWORK, "host", "none"):
        return None
    own = [container.name, *(settings.Aliases or []), container.id[:12], container.config.Hostname]
    return list(dict.fromkeys(name for name in own if name))


def _aliased_links(settings: RecordEndpoint) -> Iterator[tuple[str, str]]:
    for link in settings.Links or []:
        name, alias = parse_link(link)
        yield alias.lower(), name.lower()


def _record_endpoint(
    container: Container, network: Network, settings: RecordEndpoint, endpoint: Endpoint
) -> None:
    settings.NetworkID = network.id
    settings.EndpointID = endpoint.id
    settings.MacAddress = endpoint.mac_address
    settings.IPAddress, settings.IPPrefixLen = endpoint.ipv4_address, endpoint.ipv4_prefixlen
    settings.Gateway = endpoint.ipv4_gateway
    settings.GlobalIPv6Address = endpoint.ipv6_address
    settings.GlobalIPv6PrefixLen = endpoint.ipv6_prefixlen
    settings.IPv6Gateway = endpoint.ipv6_gateway
    if network.name == DEFAULT_NETWORK:
        container.networks.Bridge = ""


async def disconnect_from_network(engine: Engine, container: Container, network: Network) -> None:
    """Leave one network while running; ports that were published through it are published no more."""
    sandbox = engine.networks.sandbox(container.id)
    if sandbox is None:
        return
    for endpoint in [one for one in sandbox.endpoints if one.network_id == network.id]:
        await sandbox.leave(endpoint)
        note_ports(container, sandbox)
        engine.events.publish(
            "network",
            "disconnect",
            network.id,
            {"container": container.id, "name": network.name, "type": network.driver},
        )


async def rename_endpoints(engine: Engine, container: Container, old: str) -> None:
    """Let neighbours find a running container by its new name, and by the old one no more."""
    names: dict[str, list[str]] = {}
    for name, settings in (container.networks.Networks or {}).items():
        with contextlib.suppress(EngineError):
            network = find_network(engine, name, settings.NetworkID)
            if settings.DNSNames is not None:
                settings.DNSNames = names[network.id] = dns_names(container, network, settings) or []
    if (sandbox := engine.networks.sandbox(container.id)) is not None:
        await sandbox.rename(old, container.name, names)


async def release_network(engine: Engine, container: Container) -> None:
    """Destroy the sandbox, and forget what only held while it stood."""
    if joined_container(container):
        return
    had_sandbox = bool(container.networks.SandboxID)
    await engine.networks.sandbox_destroy(container.id)
    clear_operational_data(container)
    if not had_sandbox:
        return
    for name, settings in (container.networks.Networks or {}).items():
        try:
            network = find_network(engine, name, settings.NetworkID)
        except EngineError:
            continue
        engine.events.publish(
            "network",
            "disconnect",
            network.id,
            {"container": container.id, "name": network.name, "type": network.driver},
        )


def clear_operational_data(container: Container) -> None:
    """Forget addresses and ports of the last run."""
    settings = container.networks
    settings.SandboxID = settings.SandboxKey = ""
    settings.Ports = {}
    for endpoint in (settings.Networks or {}).values():
        endpoint.EndpointID = endpoint.Gateway = endpoint.IPAddress = ""
        endpoint.GlobalIPv6Address = endpoint.IPv6Gateway = endpoint.MacAddress = ""
        endpoint.IPPrefixLen = endpoint.GlobalIPv6PrefixLen = 0
