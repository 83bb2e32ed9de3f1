"""A network: its settings, its subnets, and the endpoints on it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from longshore.errors import EngineError, InvalidParameter, System
from longshore.network.endpoint import Endpoint
from longshore.network.ipam import AddressPool, IPAddress, IPAMPool, parse_address, parse_network
from longshore.network.ipam_driver import IpamDriver
from longshore.network.managed import release_addresses, replay_addresses, request_addresses
from longshore.network.options import DEFAULT_BRIDGE, DEFAULT_GATEWAY, flag, gateway_mode
from longshore.network.record import NetworkRecord
from longshore.network.threads import in_spare_thread, in_thread

if TYPE_CHECKING:
    from longshore.network.drivers import Driver


class Network:
    """One network. Owned by the event loop's thread."""

    def __init__(self, record: NetworkRecord, driver: Driver, ipam: IpamDriver | None = None) -> None:
        """`ipam` manages its addresses in place of the network itself."""
        self.record = record
        self.behaviour = driver
        self.ipam = ipam
        self.endpoints: dict[str, Endpoint] = {}
        """By endpoint id."""
        self.removing = False
        """Whether its removal has begun, and when it is gone."""
        self.moving = 0
        """Endpoints on the way to it or from it, which a plug-in may take its time for."""
        self._pools: list[tuple[AddressPool, str]] = []
        self._names: dict[str, dict[str, Endpoint]] = {}
        self._not_had: set[tuple[str, str]] = set()
        """Addresses that running endpoints have although somebody else was given them."""

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
    def scope(self) -> str:
        """`local` or `global`."""
        return self.record.scope

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

    async def in_thread(self, call: Callable[..., None], *arguments: object) -> None:
        """Have its driver do something, as `threads.in_thread`."""
        await (in_spare_thread if self.behaviour.remote else in_thread)(call, *arguments)

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

    @contextmanager
    def in_motion(self) -> Iterator[None]:
        """Stay, while there is an endpoint on the way that is not found, or not any more."""
        self.moving += 1
        try:
            yield
        finally:
            self.moving -= 1

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
        for text in filter(None, wanted):
            if not any(parse_address(text) in parse_network(pool.subnet) for pool in self.pools):
                raise self._foreign(text)

    async def take_addresses(self, endpoint: Endpoint, ipv4: str, ipv6: str) -> None:
        """Give an endpoint its addresses, prefix lengths and gateways; those that are wanted, if any are.

        Raises Forbidden if one is in use, InvalidParameter if it is on none of the subnets, Unavailable, and
        whatever an IPAM driver says. What was taken by then `release_addresses` gives back.
        """
        if self.ipam is not None:
            await in_spare_thread(request_addresses, self.ipam, self.record, endpoint, {4: ipv4, 6: ipv6})
            for other in self.endpoints.values():
                for address in {*endpoint.held} & {*other.held}:
                    del endpoint.held[address]  # It is the other's.
                    raise System(f"ipam driver {self.record.ipam_driver} gave {address}, which is in use")
            return
        if self.enable_ipv4:
            taken = self._take_address(4, ipv4)
            endpoint.ipv4_address, endpoint.ipv4_prefixlen, endpoint.ipv4_gateway = taken
        if self.enable_ipv6:
            taken = self._take_address(6, ipv6)
            endpoint.ipv6_address, endpoint.ipv6_prefixlen, endpoint.ipv6_gateway = taken

    async def restore_addresses(self, endpoint: Endpoint) -> list[str]:
        """Take again what a running endpoint has; returns what could not be had again."""
        problems: list[str] = []
        if self.ipam is not None:
            if self.record.ipam_replay:
                ipam, record = self.ipam, self.record
                await in_spare_thread(lambda: problems.extend(replay_addresses(ipam, record, endpoint)))
            return problems
        for version, address in ((4, endpoint.ipv4_address), (6, endpoint.ipv6_address)):
            if address:
                try:
                    self._take_address(version, address)
                except EngineError as exc:
                    self._not_had.add((endpoint.id, address))
                    problems.append(f"{endpoint.name}: {address}: {exc.message}")
        return problems

    async def release_addresses(self, endpoint: Endpoint) -> None:
        """Give an endpoint's addresses back."""
        if self.ipam is not None:
            await in_spare_thread(release_addresses, self.ipam, endpoint)
            return
        for text in (endpoint.ipv4_address, endpoint.ipv6_address):
            if text and (endpoint.id, text) not in self._not_had:
                address: IPAddress = ipaddress.ip_address(text)
                for pool, _ in self._pools:
                    if address in pool:
                        pool.release(address)

    def _take_address(self, version: int, wanted: str) -> tuple[str, int, str]:
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
