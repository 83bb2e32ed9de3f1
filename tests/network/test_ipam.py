"""Address management."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

import pytest

from longshore.errors import Forbidden, InvalidParameter, Unavailable
from longshore.network.config import DEFAULT_ADDRESS_POOLS
from longshore.network.ipam import AddressPool, AddressSpace


@pytest.mark.parametrize("seed", range(20))
def test_no_address_is_given_twice_and_the_lowest_free_comes_first(seed: int) -> None:
    chance = random.Random(seed)
    subnet = ip_network("10.5.0.0/26")
    pool = AddressPool(subnet, ip_network(chance.choice(["10.5.0.0/26", "10.5.0.32/27", "10.5.0.16/28"])))
    hosts = set(subnet.hosts())
    in_range = {address for address in hosts if address in pool.ip_range}
    taken: set[object] = set()
    for _ in range(500):
        if chance.random() < 0.6:
            free = in_range - taken
            if not free:
                with pytest.raises(Unavailable):
                    pool.allocate()
                continue
            address = pool.allocate()
            assert address == min(free)
            taken.add(address)
        elif chance.random() < 0.3:
            address = chance.choice(sorted(hosts))
            if address in taken:
                with pytest.raises(Forbidden, match="Address already in use"):
                    pool.reserve(address)
            else:
                pool.reserve(address)
                taken.add(address)
        elif taken:
            address = chance.choice(sorted(taken, key=str))  # type: ignore[assignment]
            pool.release(address)
            pool.release(address)
            taken.remove(address)


def test_network_and_broadcast_addresses_are_no_hosts() -> None:
    pool = AddressPool(ip_network("10.5.0.0/30"))
    assert [str(pool.allocate()), str(pool.allocate())] == ["10.5.0.1", "10.5.0.2"]
    for text in ("10.5.0.0", "10.5.0.3", "10.6.0.1", "fd00::1"):
        with pytest.raises(InvalidParameter):
            pool.reserve(ip_address(text))


def test_subnets_follow_dockers_pools_and_avoid_routes() -> None:
    space = AddressSpace(DEFAULT_ADDRESS_POOLS)
    routed = [ip_network("172.17.4.0/24"), ip_network("172.18.0.0/15")]
    assert str(space.allocate(4, routed)) == "172.20.0.0/16"
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        space.reserve(ip_network("172.20.9.0/24"))
    rest = [str(space.allocate(4, [])) for _ in range(30)]
    assert len(set(rest)) == 30 and rest[-1] == "192.168.240.0/20"
    with pytest.raises(InvalidParameter, match="all predefined address pools have been fully subnetted"):
        space.allocate(4, [])
    space.release(ip_network("172.17.0.0/16"))
    assert str(space.allocate(4, [])) == "172.17.0.0/16"
