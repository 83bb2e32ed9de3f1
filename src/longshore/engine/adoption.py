"""Networks of running containers that another daemon has left, told from their records and the kernel."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from longshore.containers.container import Container
from longshore.containers.record import RecordEndpoint
from longshore.engine.engine import Engine
from longshore.engine.networking import (
    dns_names,
    find_network,
    joined_container,
    network_mode,
    sandbox_options,
)
from longshore.engine.ports import parse_port
from longshore.errors import EngineError
from longshore.linux import rtnetlink
from longshore.linux.namespaces import in_network_namespace, is_network_namespace
from longshore.linux.netlink import NetlinkSocket
from longshore.network.endpoint import Endpoint, PortBinding
from longshore.network.ipam import parse_address
from longshore.network.network import Network
from longshore.network.sandbox_record import SandboxRecord

T = TypeVar("T")

log = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{64}")


def sandbox_of(engine: Engine, container_id: str) -> SandboxRecord | None:
    """A sandbox as ours would be, in a namespace that is where ours would be; None if there is none. Blocks.

    What cannot be told of it is left out: the container keeps it, and this engine does not manage it.
    """
    try:
        return _sandbox_of(engine, container_id)
    except EngineError as exc:
        log.warning("container %s: its network is left to itself: %s", container_id[:12], exc.message)
        return None


def _sandbox_of(engine: Engine, container_id: str) -> SandboxRecord | None:
    container, namespaces = engine.containers.find(container_id), engine.networks.config.namespaces
    if container is None or joined_container(container) or network_mode(container) == "host":
        return None
    settings = container.networks
    key = namespaces / Path(settings.SandboxKey).name
    if not _ID.fullmatch(settings.SandboxID) or key.name != settings.SandboxID[:12]:
        return None
    if not is_network_namespace(key):
        return None
    options = sandbox_options(engine, container, None)
    options.port_bindings = _published(container)
    record = SandboxRecord(id=settings.SandboxID, container_id=container_id, key=str(key), options=options)
    try:
        inside = in_network_namespace(key, lambda: _ask(rtnetlink.links))
        outside = {link.index: link for link in _ask(rtnetlink.links)}
    except OSError as exc:
        log.warning("container %s: its network cannot be looked at: %s", container_id[:12], exc)
        return None
    by_address = {link.address: link for link in inside}
    for name, endpoint in (settings.Networks or {}).items():
        try:
            network = find_network(engine, name, endpoint.NetworkID)
            link = by_address.get(endpoint.MacAddress)
            if link is None and network.behaviour.addressed:
                log.warning("container %s: it has no interface on network %s", container_id[:12], name)
                continue
            peer = outside.get(link.peer) if link is not None else None
            bridge = next((one.index for one in outside.values() if one.name == network.record.link), -1)
            if network.driver == "bridge" and (peer is None or peer.master != bridge):
                # dockerd's default bridge is another than ours where either was told to be.
                log.warning("container %s: it is on another bridge than that of %s", container_id[:12], name)
                continue
            made = _endpoint(container, network, endpoint)
            made.interface = link.name if link is not None else ""
            made.host_interface = peer.name if peer is not None and network.driver == "bridge" else ""
            record.endpoints.append(made)
        except EngineError as exc:
            log.warning("container %s: it is not on network %s: %s", container_id[:12], name, exc.message)
    return record


def _endpoint(container: Container, network: Network, settings: RecordEndpoint) -> Endpoint:
    """Raises InvalidParameter for what is no address: it would get into the firewall's rules."""
    for address in (
        settings.IPAddress,
        settings.Gateway,
        settings.GlobalIPv6Address,
        settings.IPv6Gateway,
    ):
        if address:
            parse_address(address)
    settings.NetworkID = network.id
    settings.DNSNames = dns_names(container, network, settings)
    return Endpoint(
        id=settings.EndpointID if _ID.fullmatch(settings.EndpointID) else secrets.token_hex(32),
        name=container.name,
        network_id=network.id,
        network_name=network.name,
        container_id=container.id,
        mac_address=settings.MacAddress,
        ipv4_address=settings.IPAddress,
        ipv4_prefixlen=settings.IPPrefixLen,
        ipv4_gateway=settings.Gateway,
        ipv6_address=settings.GlobalIPv6Address,
        ipv6_prefixlen=settings.GlobalIPv6PrefixLen,
        ipv6_gateway=settings.IPv6Gateway,
        aliases=list(settings.Aliases or []),
        dns_names=list(settings.DNSNames or []),
        driver_opts=dict(settings.DriverOpts or {}),
        gw_priority=settings.GwPriority,
        default_route=not network.internal,
    )


def _published(container: Container) -> list[PortBinding]:
    """The very ports that were found for it, so that they are found again."""
    bindings = []
    for port, places in (container.networks.Ports or {}).items():
        for place in places or []:
            try:
                protocol, number, _ = parse_port(port)
                _, chosen, _ = parse_port(f"{place.HostPort}/{protocol}")
                if place.HostIp:
                    parse_address(place.HostIp)
            except EngineError as exc:
                log.warning(
                    "container %s: port %s is not published: %s", container.id[:12], port, exc.message
                )
                continue
            bindings.append(PortBinding(protocol, number, place.HostIp, chosen, chosen))
    return bindings


def _ask(question: Callable[[NetlinkSocket], T]) -> T:
    socket = NetlinkSocket()
    try:
        return question(socket)
    finally:
        socket.close()
