"""macvlan and ipvlan: containers beside the machine on its wire."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from contextlib import closing

import pytest
from network.machines import MACHINE, NEIGHBOUR, Machine, Server, add, see

from longshore.errors import InvalidParameter, System
from longshore.linux import rtnetlink
from longshore.linux.namespaces import in_network_namespace, run_in_fresh_thread, unshare_network
from longshore.linux.netlink import NetlinkSocket
from longshore.network.controller import NetworkController
from longshore.network.endpoint import EndpointOptions
from longshore.network.ipam import IPAMPool
from longshore.network.network import Network

Serve = Callable[..., Server]


def kernel_has(kind: str) -> bool:
    def attempt() -> bool:
        unshare_network()
        command = ["ip", "link", "add", "x0", "type", kind]
        done = subprocess.run(command, capture_output=True, text=True)
        return "Unknown device type" not in done.stderr

    return run_in_fresh_thread(attempt)


def needs(*kinds: str) -> pytest.MarkDecorator:
    missing = [kind for kind in kinds if not kernel_has(kind)]
    return pytest.mark.skipif(bool(missing), reason=f"this kernel has no {' and no '.join(missing)}")


def link_names() -> set[str]:
    with closing(NetlinkSocket()) as rtnl:
        return {link.name for link in rtnetlink.links(rtnl)}


def on_the_wire() -> list[IPAMPool]:
    return [
        IPAMPool(
            subnet="198.51.100.0/24",
            ip_range="198.51.100.64/26",
            gateway=NEIGHBOUR,
            aux_addresses={"host": MACHINE},
        )
    ]


async def two_on(controller: NetworkController, network: Network, serve: Serve, outside: str | None) -> None:
    """Two containers reach each other and the neighbour, who sees their own addresses."""
    one, first = await add(controller, "one", network.name)
    two, second = await add(controller, "two", network.name)
    serve(one.key, 80)
    assert await see(two.key, first.ipv4_address, 80) == second.ipv4_address
    if outside:
        assert await see(two.key, outside, 7000) == second.ipv4_address


@needs("macvlan")
def test_macvlan(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        network = await controller.create_network(
            "lan", "macvlan", ipam=on_the_wire(), options={"parent": "wire0"}
        )
        serve(host.neighbour, 7000)
        await two_on(controller, network, serve, NEIGHBOUR)
        _, fixed = await add(
            controller, "fixed", "lan", ipv4_address="198.51.100.99", mac_address="02:00:00:00:00:99"
        )
        assert (fixed.interface, fixed.host_interface) == ("eth0", "")
        assert await see(host.neighbour, "198.51.100.64", 80) == NEIGHBOUR
        # Joined and left while it runs; the bridge stays its way out, for it comes first by name.
        box, way = await add(controller, "box")
        lan = await box.join(network, EndpointOptions(name="box"))
        assert lan.interface == "eth1" and await see(box.key, NEIGHBOUR, 7000) == lan.ipv4_address
        await box.leave(lan)
        assert await see(box.key, NEIGHBOUR, 7000) == MACHINE and way.ipv4_address
        other = await controller.create_network(
            "more", "macvlan", ipam=[IPAMPool(subnet="10.44.0.0/24")], options={"parent": "wire0"}
        )
        await controller.remove_network(other)
        with pytest.raises(System, match="cannot use mode passthru, macvlan network"):
            await controller.create_network(
                "thru", "macvlan", options={"parent": "wire0", "macvlan_mode": "passthru"}
            )
        for id in ("one", "two", "fixed"):
            await controller.sandbox_destroy(id)
        await controller.remove_network(network)
        await controller.stop(False)
        assert link_names() == {"lo", "wire0"}

    asyncio.run(run())


@needs("macvlan")
def test_private_macvlan_is_apart_from_its_like(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        options = {"parent": "wire0", "macvlan_mode": "private"}
        await controller.create_network("lan", "macvlan", ipam=on_the_wire(), options=options)
        one, first = await add(controller, "one", "lan")
        two, second = await add(controller, "two", "lan")
        serve(one.key, 80)
        serve(host.neighbour, 7000)
        assert await see(two.key, NEIGHBOUR, 7000) == second.ipv4_address
        assert await see(host.neighbour, first.ipv4_address, 80) == NEIGHBOUR
        assert await see(two.key, first.ipv4_address, 80) is None
        await controller.stop(False)

    asyncio.run(run())


@needs("macvlan")
def test_macvlan_that_is_internal(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        network = await controller.create_network(
            "lan", "macvlan", options={"parent": "wire0", "macvlan_mode": "bridge"}, internal=True
        )
        assert network.pools[0].gateway == ""
        await two_on(controller, network, serve, None)
        serve(host.neighbour, 7000)
        assert await see(controller.sandbox("one").key, NEIGHBOUR, 7000) is None  # type: ignore[union-attr]
        await controller.stop(False)

    asyncio.run(run())


@needs("macvlan", "dummy")
def test_macvlan_without_a_parent(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        network = await controller.create_network("lan", "macvlan")
        assert network.record.parent in link_names()
        await two_on(controller, network, serve, None)
        for id in ("one", "two"):
            await controller.sandbox_destroy(id)
        await controller.remove_network(network)
        await controller.stop(False)
        assert link_names() == {"lo", "wire0"}

    asyncio.run(run())


@needs("macvlan", "vlan")
def test_macvlan_on_a_vlan(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        network = await controller.create_network("lan", "macvlan", options={"parent": "wire0.50"})
        assert "wire0.50" in link_names()
        await two_on(controller, network, serve, None)
        for id in ("one", "two"):
            await controller.sandbox_destroy(id)
        await controller.remove_network(network)
        await controller.stop(False)
        assert link_names() == {"lo", "wire0"}

    asyncio.run(run())


@needs("ipvlan")
@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_ipvlan(host: Machine, serve: Serve, mode: str) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        network = await controller.create_network(
            "lan", "ipvlan", ipam=on_the_wire(), options={"parent": "wire0", "ipvlan_mode": mode}
        )
        serve(host.neighbour, 7000)
        if mode != "l2":
            # Nobody answers ARP for the containers: they are behind the machine, as its neighbours must know.
            route = ["ip", "route", "add", "198.51.100.64/26", "via", MACHINE]
            in_network_namespace(host.neighbour, lambda: subprocess.run(route, check=True))
        await two_on(controller, network, serve, NEIGHBOUR)
        for id in ("one", "two"):
            await controller.sandbox_destroy(id)
        await controller.remove_network(network)
        await controller.stop(False)
        assert link_names() == {"lo", "wire0"}

    asyncio.run(run())


def test_what_vlan_drivers_refuse(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        for driver, options, words in (
            ("macvlan", {"macvlan_mode": "nope"}, "requested macvlan mode 'nope' is not valid, 'bridge'"),
            ("ipvlan", {"ipvlan_mode": "nope"}, "requested ipvlan mode 'nope' is not valid, 'l2' mode"),
            ("macvlan", {"parent": "lo"}, "loopback interface is not a valid macvlan parent link"),
            ("macvlan", {"parent": "nosuch0"}, "invalid subinterface vlan name nosuch0"),
            ("macvlan", {"parent": "nosuch0.x"}, "required interface name format is: name.vlan_id"),
            ("macvlan", {"parent": "wire0.4095"}, "vlan id must be between 1-4094, received: 4095"),
            ("macvlan", {"parent": "nosuch0.10"}, "failed to find master interface nosuch0"),
            ("macvlan", {"parent": "../x"}, "invalid interface name"),
        ):
            with pytest.raises(InvalidParameter, match=words):
                await controller.create_network("lan", driver, options=options)
        assert [network.name for network in controller.networks()] == ["none", "host", "bridge"]
        await controller.stop(False)

    asyncio.run(run())
