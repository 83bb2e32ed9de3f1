"""A network: its settings, its subnets, and the endpoints on it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import msgspec

from longshore.errors import EngineError, InvalidParameter
from longshore.network.endpoint import Endpoint
from longshore.network.ipam import AddressPool, IPAddress, IPAMPool, parse_address, parse_network
from longshore.network.options import DEFAULT_BRIDGE, DEFAULT_GATEWAY, flag, gateway_mode

if TYPE_CHECKING:
    from longshore.network.drivers import Driver


class NetworkRecord(msgspec.Struct, kw_only=True):
    """A network as it is stored. `created` is RFC 3339."""

    id: str
    name: str
    driver: str
    created: str
    options: dict[str, str] = {}
    pools: list[IPAMPool] = []
    ipam_options: dict[str, str] = {}
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    labels: dict[str, str] = {}
    config_only: bool = False
    """Only settings, for others to take: nothing is made of it."""
    config_from: str = ""
    """Name of the network whose settings were taken."""
    link: str = ""
    """The bridge's link."""
    parent: str = ""
    """The link that macvlan and ipvlan interfaces stand on."""
    link_made: bool = False
    """Whether link or parent is ours to delete: one that was there before is not."""
    admitted: bool = False
    """Whether other people's firewalls had to be asked to let it through."""


class Network:
    """One network. Owned by the event loop's thread."""

    scope = "local"

    def __init__(self, record: NetworkRecord, driver: Driver) -> None:
        self.record = record
        self.behaviour = driver
        self.endpoints: dict[str, Endpoint] = {}
        """By endpoint id."""
        self.removing = False
        self._pools: list[tuple[AddressPool, str]] = []
        self._names: dict[str, dict[str, Endpoint]] = {}

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.record.id

    @property
    def name(self) -> str:
        """Unique among the networks."""
        return self.record.name

    @property
    def driver(self) -> str:
        """Name of the driver."""
        return self.record.driver

    @property
    def created(self) -> str:
        """RFC 3339."""
        return self.record.created

    @property
    def options(self) -> dict[str, str]:
        """The driver's options, as given."""
        return self.record.options

    @property
    def labels(self) -> dict[str, str]:
        """The user's labels."""
        return self.record.labels

    @property
    def pools(self) -> list[IPAMPool]:
        """The subnets as they are."""
        return self.record.pools

    @property
    def internal(self) -> bool:
        """Whether nothing leaves or enters it."""
        return self.record.internal

    @property
    def attachable(self) -> bool:
        """As given; of no consequence for local networks."""
        return self.record.attachable

    @property
    def enable_ipv4(self) -> bool:
        """Whether endpoints have IPv4 addresses."""
        return self.record.enable_ipv4

    @property
    def enable_ipv6(self) -> bool:
        """Whether endpoints have IPv6 addresses."""
        return self.record.enable_ipv6

    @property
    def has_resolver(self) -> bool:
        """Whether containers on it find each other by name: on all but the predefined networks."""
        return self.behaviour.addressed and not self.is_default_bridge

    @property
    def is_default_bridge(self) -> bool:
        """Whether it is the network `bridge`."""
        return flag(self.options, DEFAULT_BRIDGE, default=False)

    def gateway_mode(self, version: int) -> str:
        """nat, nat-unprotected, routed or isolated, by IP version."""
        return gateway_mode(self.options, version)

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Let an endpoint be found, by its names as well."""
        self.endpoints[endpoint.id] = endpoint
        for name in endpoint.names():
            self._names.setdefault(name, {})[endpoint.id] = endpoint

    def drop_endpoint(self, id: str) -> None:
        """Let an endpoint be found no more; nothing happens if it was not."""
        endpoint = self.endpoints.pop(id, None)
        for name in endpoint.names() if endpoint is not None else ():
            self._names[name].pop(id, None)
            if not self._names[name]:
                del self._names[name]

    def named(self, name: str) -> list[Endpoint]:
        """The endpoints of a name in lower case, which may end with the network's own."""
        found = self._names.get(name) or self._names.get(name.removesuffix(f".{self.name.lower()}"))
        return list(found.values()) if found else []

    def open_pools(self) -> None:
        """Set up allocation with gateways and auxiliary addresses taken. Raises as `AddressPool.reserve`."""
        self._pools = []
        for pool in self.pools:
            subnet = parse_network(pool.subnet)
            addresses = AddressPool(subnet, parse_network(pool.ip_range) if pool.ip_range else None)
            if pool.gateway:
                addresses.reserve(parse_address(pool.gateway))
            elif self.behaviour.needs_gateway(self.record, subnet.version):
                pool.gateway = str(addresses.allocate())
            for address in pool.aux_addresses.values():
                if address != pool.gateway:
                    addresses.reserve(parse_address(address))
            gateway = pool.aux_addresses.get(DEFAULT_GATEWAY[subnet.version], pool.gateway)
            self._pools.append((addresses, gateway))

    def check_wanted(self, *wanted: str) -> None:
        """Raises InvalidParameter if a user asks for addresses that the network cannot have.

        Where subnets were chosen for him, that is any.
        """
        if any(wanted) and all(pool.chosen for pool in self.pools):
            raise InvalidParameter(
                f"invalid config for network {self.name}: invalid endpoint settings:\n"
                "user specified IP address is supported only when connecting to networks with user "
                "configured subnets"
            )
        for text in wanted:
            if text and not any(parse_address(text) in pool for pool, _ in self._pools):
                raise self._foreign(text)

    def take_address(self, version: int, wanted: str) -> tuple[str, int, str]:
        """An address, its prefix length and its gateway; the wanted address if one is named.

        Raises Forbidden if it is in use, InvalidParameter if it is on none of the subnets, Unavailable.
        """
        failure: EngineError | None = None
        for pool, gateway in self._pools:
            if pool.subnet.version != version:
                continue
            try:
                if not wanted:
                    return str(pool.allocate()), pool.subnet.prefixlen, gateway
                address = parse_address(wanted)
                if address in pool:
                    pool.reserve(address)
                    return str(address), pool.subnet.prefixlen, gateway
            except EngineError as exc:
                failure = exc
        if failure is None:
            failure = self._foreign(wanted)
        elif "no available" in failure.message:
            failure = type(failure)(f"{failure.message}: {self.name} ({self.id})")
        raise failure

    def _foreign(self, address: str) -> InvalidParameter:
        return InvalidParameter(
            f"invalid config for network {self.name}: invalid endpoint settings:\n"
            f"no configured subnet contains IP address {address}"
        )

    def release_addresses(self, endpoint: Endpoint) -> None:
        """Give an endpoint's addresses back."""
        for text in (endpoint.ipv4_address, endpoint.ipv6_address):
            if text:
                address: IPAddress = ipaddress.ip_address(text)
                for pool, _ in self._pools:
                    if address in pool:
                        pool.release(address)
