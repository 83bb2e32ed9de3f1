"""Endpoints: a sandbox's place on one network, as asked for and as it came to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class PortBinding:
    """A port to publish. An empty host address is the network's default, host port 0 is chosen.

    Of the host ports from start to end the first free one is taken.
    """

    protocol: str
    container_port: int
    host_ip: str = ""
    host_port_start: int = 0
    host_port_end: int = 0


class PublishedPort(msgspec.Struct, frozen=True):
    """A port as it is published. `protocol` is tcp, udp or sctp; host port 0 is none, as in routed mode."""

    protocol: str
    container_ip: str
    container_port: int
    host_ip: str
    host_port: int
    direct: bool = False
    """Reached by the container's own address as well."""


@dataclass(slots=True)
class EndpointOptions:
    """What is asked of an endpoint; empty values are chosen."""

    name: str = ""
    mac_address: str = ""
    ipv4_address: str = ""
    ipv6_address: str = ""
    aliases: list[str] = field(default_factory=list)
    dns_names: list[str] = field(default_factory=list)
    """Every name that the network's DNS answers for this endpoint, aliases included."""
    driver_opts: dict[str, str] = field(default_factory=dict)
    gw_priority: int = 0
    link_local_addresses: list[str] = field(default_factory=list)
    port_bindings: list[PortBinding] = field(default_factory=list)
    """Added to what the sandbox publishes."""
    links: dict[str, str] = field(default_factory=dict)


class Endpoint(msgspec.Struct, kw_only=True):
    """An endpoint as it is; stored in its sandbox's record. Addresses are empty where there are none."""

    id: str
    name: str
    network_id: str
    network_name: str
    container_id: str
    mac_address: str = ""
    ipv4_address: str = ""
    ipv4_prefixlen: int = 0
    ipv4_gateway: str = ""
    ipv6_address: str = ""
    ipv6_prefixlen: int = 0
    ipv6_gateway: str = ""
    interface: str = ""
    """Name inside the namespace, e.g. eth0."""
    host_interface: str = ""
    """Name of the veth's other end, on the bridge."""
    publishes: list[int] = []
    """IP versions of the host addresses that it publishes the sandbox's ports at."""
    ports: list[PublishedPort] = []
    aliases: list[str] = []
    dns_names: list[str] = []
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0
    default_route: bool = True
    """Whether its gateway may be the sandbox's way out; not so on internal networks."""
    device_route: bool = False
    """Whether, without a gateway, the interface itself is a way out."""
    link_local_addresses: list[str] = []
    """Further addresses, not taken from any pool."""
    links: dict[str, str] = {}
    """Names that this endpoint alone calls neighbours by, and the neighbours' names."""
    told: dict[str, Any] = {}
    """What a plug-in is told of the sandbox: ports that it exposes, and that it wants published."""
    lacks_gateway: bool = False
    """Whether its network, a plug-in's, leaves the way out to the engine."""
    leads_out: bool = False
    """Whether a default route came with it that is no gateway's."""
    gateway_service: bool = False
    """Whether it is the engine's, made because all others lack a gateway."""
    held: dict[str, str] = {}
    """Addresses to give back to an IPAM driver, and the ids of their pools."""

    def names(self) -> set[str]:
        """Every name it is found by, in lower case."""
        if self.gateway_service:
            return set()
        return {one.lower() for one in (self.name, *self.dns_names, *self.aliases)}
