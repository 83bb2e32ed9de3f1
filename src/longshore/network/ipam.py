"""Address management: which subnets networks get, and which addresses their endpoints get.

As Docker's default IPAM driver: subnets come from the address pools in order, addresses are the lowest free
ones, none is ever given twice. State is in memory only; it is rebuilt from the stored records at start.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

from longshore.errors import Forbidden, InvalidParameter, Unavailable

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


class IPAMPool(msgspec.Struct, kw_only=True):
    """One subnet as asked for or, of an existing network, as it is. Empty strings are to be chosen."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: dict[str, str] = {}
    chosen: bool = False
    """The subnet was left to us."""
    pool_id: str = ""
    """What an IPAM driver knows it by."""
    gateway_given: bool = False
    """The IPAM driver named the gateway together with the pool."""


class AddressPool:
    """The addresses of one subnet. Allocation costs O(log n) in the number of released addresses."""

    def __init__(self, subnet: IPNetwork, ip_range: IPNetwork | None = None) -> None:
        self.subnet = subnet
        self.ip_range = ip_range or subnet
        # The network address never names a host (in IPv6 it is the routers' anycast address, RFC 4291);
        # IPv4's last address is broadcast. Subnets of one or two addresses have neither (RFC 3021).
        small = subnet.prefixlen >= subnet.max_prefixlen - 1
        self._first = int(subnet.network_address) + (0 if small else 1)
        self._last = int(subnet.broadcast_address) - (0 if small or subnet.version == 6 else 1)
        self._range_end = min(self._last, int(self.ip_range.broadcast_address))
        self._next = max(self._first, int(self.ip_range.network_address))
        self._released: list[int] = []
        self._used: set[int] = set()

    def allocate(self) -> IPAddress:
        """The lowest free address of the range. Raises Unavailable if there is none."""
        while self._released:
            candidate = heapq.heappop(self._released)
            if candidate not in self._used:
                return self._take(candidate)
        while self._next <= self._range_end:
            candidate = self._next
            self._next += 1
            if candidate not in self._used:
                return self._take(candidate)
        raise Unavailable(f"no available IPv{self.subnet.version} addresses on this network's address pools")

    def reserve(self, address: IPAddress) -> None:
        """Take one given address of the subnet. Raises Forbidden if it is in use, else InvalidParameter."""
        number = int(address)
        if address.version != self.subnet.version or not self._first <= number <= self._last:
            raise InvalidParameter("requested address is out of range")
        if number in self._used:
            raise Forbidden("Address already in use")
        self._take(number)

    def release(self, address: IPAddress) -> None:
        """Give an address back; nothing happens if it is not taken."""
        number = int(address)
        if number not in self._used:
            return
        self._used.discard(number)
        if int(self.ip_range.network_address) <= number < self._next:
            heapq.heappush(self._released, number)

    def __contains__(self, address: IPAddress) -> bool:
        return address.version == self.subnet.version and address in self.subnet

    def _take(self, number: int) -> IPAddress:
        self._used.add(number)
        return self.subnet.network_address + (number - int(self.subnet.network_address))


class AddressSpace:
    """The subnets of all networks; no two overlap. Methods may be called in threads."""

    def __init__(self, pools: Sequence[tuple[str, int]]) -> None:
        """`pools`: (base, prefix length of each network), used in order. Raises InvalidParameter."""
        self._pools: list[tuple[IPNetwork, int]] = []
        for base, size in pools:
            network = parse_network(base)
            if not network.prefixlen <= size <= network.max_prefixlen:
                raise InvalidParameter(f"invalid address pool: base {base}, size {size}")
            self._pools.append((network, size))
        self._taken: list[IPNetwork] = []
        self._lock = threading.Lock()

    def allocate(self, version: int, avoid: Iterable[IPNetwork]) -> IPNetwork:
        """The first free subnet that overlaps none of `avoid`. Raises InvalidParameter if there is none."""
        with self._lock:
            blocked = [network for network in (*self._taken, *avoid) if network.version == version]
            for base, size in self._pools:
                if base.version != version:
                    continue
                for candidate in base.subnets(new_prefix=size):
                    if not any(overlap(candidate, other) for other in blocked):
                        self._taken.append(candidate)
                        return candidate
        raise InvalidParameter("all predefined address pools have been fully subnetted")

    def taken(self) -> list[IPNetwork]:
        """What is allocated and reserved."""
        with self._lock:
            return list(self._taken)

    def offers(self, version: int) -> bool:
        """Whether there are pools of that IP version to choose from."""
        return any(base.version == version for base, _ in self._pools)

    def reserve(self, subnet: IPNetwork) -> None:
        """Take a given subnet. Raises Forbidden if it overlaps one that is taken."""
        with self._lock:
            if any(overlap(subnet, other) for other in self._taken):
                raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
            self._taken.append(subnet)

    def release(self, subnet: IPNetwork) -> None:
        """Give a subnet back; nothing happens if it is not taken."""
        with self._lock, suppress(ValueError):
            self._taken.remove(subnet)


def parse_network(text: str) -> IPNetwork:
    """A subnet in CIDR notation; host bits are dropped, as Docker does. Raises InvalidParameter."""
    try:
        return ip_network(_without_zone(text), strict=False)
    except ValueError:
        raise InvalidParameter(f"invalid CIDR address: {text}") from None


def parse_address(text: str) -> IPAddress:
    """An IP address. Raises InvalidParameter."""
    try:
        return ip_address(_without_zone(text))
    except ValueError:
        raise InvalidParameter(f"invalid IP address: {text}") from None


def _without_zone(text: str) -> str:
    # Python takes whatever stands behind the sign for the name of a zone, and so does not stop it.
    if "%" in text:
        raise ValueError("an address with a zone")
    return text


def overlap(one: IPNetwork, other: IPNetwork) -> bool:
    """Whether two subnets have an address in common."""
    if one.version != other.version:
        return False
    return int(one.network_address) <= int(other.broadcast_address) and int(other.network_address) <= int(
        one.broadcast_address
    )
