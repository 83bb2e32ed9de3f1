"""Address management."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.errors import Forbidden, InvalidParameter, Unavailable
from longshore.network.config import DEFAULT_ADDRESS_POOLS
from longshore.network.ipam import (
    AddressPool,
    AddressSpace,
    IPAddress,
    IPNetwork,
    overlap,
    parse_network,
)

SUBNETS = ["10.5.0.0/29", "10.5.0.0/26", "10.5.0.4/31", "10.5.0.9/32", "fd00::/122", "fd00::5/128"]


@given(st.data())
def test_no_address_is_given_twice_and_the_lowest_free_comes_first(data: st.DataObject) -> None:
    subnet = ip_network(data.draw(st.sampled_from(SUBNETS)))
    parts = [subnet]
    if subnet.prefixlen < subnet.max_prefixlen - 1:
        parts += list(subnet.subnets(prefixlen_diff=1))
    pool = AddressPool(subnet, data.draw(st.sampled_from(parts)))
    hosts = list(subnet.hosts())
    if subnet.version == 6 and len(parts) > 1:
        hosts = [address for address in subnet if address != subnet.network_address]
    taken: set[IPAddress] = set()
    for _ in range(data.draw(st.integers(1, 60))):
        free = {address for address in hosts if address in pool.ip_range} - taken
        match data.draw(st.sampled_from(["allocate", "allocate", "reserve", "release"])):
            case "allocate" if free:
                address = pool.allocate()
                assert address == min(free)
                taken.add(address)
            case "allocate":
                with pytest.raises(Unavailable):
                    pool.allocate()
            case "reserve":
                address = data.draw(st.sampled_from(hosts))
                if address in taken:
                    with pytest.raises(Forbidden, match="Address already in use"):
                        pool.reserve(address)
                else:
                    pool.reserve(address)
                    taken.add(address)
            case "release" if taken:
                address = data.draw(st.sampled_from(sorted(taken)))
                pool.release(address)
                pool.release(address)
                taken.remove(address)


@given(st.data())
def test_no_two_subnets_overlap(data: st.DataObject) -> None:
    space = AddressSpace([("10.0.0.0/24", 27), ("10.0.1.0/24", 26), ("fd00::/60", 64)])
    routed = [ip_network(data.draw(st.sampled_from(["10.0.0.32/27", "10.0.0.0/26", "192.0.2.0/24"])))]
    taken: list[IPNetwork] = []
    for _ in range(data.draw(st.integers(1, 40))):
        match data.draw(st.sampled_from(["allocate", "allocate", "reserve", "release"])):
            case "allocate":
                try:
                    subnet = space.allocate(data.draw(st.sampled_from([4, 6])), routed)
                except InvalidParameter:
                    continue
                assert not any(overlap(subnet, other) for other in (*taken, *routed))
                taken.append(subnet)
            case "reserve":
                number, length = data.draw(st.integers(0, 511)), data.draw(st.integers(24, 30))
                subnet = parse_network(f"10.0.{number >> 8}.{number & 255}/{length}")
                if any(overlap(subnet, other) for other in taken):
                    with pytest.raises(Forbidden):
                        space.reserve(subnet)
                else:
                    space.reserve(subnet)
                    taken.append(subnet)
            case "release" if taken:
                subnet = taken.pop(data.draw(st.integers(0, len(taken) - 1)))
                space.release(subnet)
                space.release(subnet)


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
