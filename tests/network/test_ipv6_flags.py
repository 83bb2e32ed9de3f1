"""IPv6: flags of the default bridge, addresses for outgoing packets, networks without IPv4 or filter."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from network.machines import MACHINE, NEIGHBOUR, Machine, Server, add, die, see

from longshore.errors import InvalidParameter
from longshore.linux import rtnetlink
from longshore.linux.namespaces import in_network_namespace
from longshore.linux.netlink import NetlinkSocket
from longshore.network.endpoint import PortBinding
from longshore.network.ipam import IPAMPool
from longshore.network.options import ICC, SOURCES

Serve = Callable[..., Server]
OURS, THEIRS = "2001:db8::1", "2001:db8::2"


def lay_cable(host: Machine, *more: str) -> None:
    """Give the machine and its neighbour IPv6 addresses; the neighbour routes everything by us."""
    with closing(NetlinkSocket()) as rtnl:
        wire = rtnetlink.link_by_name(rtnl, "wire0")
        assert wire
        for address in (OURS, *more):
            rtnetlink.add_address(rtnl, wire.index, ip_interface(f"{address}/64"))
    for command in (f"addr add {THEIRS}/64 dev wire0 nodad", f"route add default via {OURS}"):
        subprocess.run(["nsenter", f"--net={host.neighbour}", "ip", "-6", *command.split()], check=True)


async def soon(wanted: str | None, *arguments: object) -> bool:
    """Links take a second or two to be sure of their own addresses."""
    for _ in range(20):
        if await see(*arguments) == wanted:
            return True
        await asyncio.sleep(0.1)
    return False


def test_outgoing_packets_get_the_address_that_is_asked_for(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        await asyncio.to_thread(lay_cable, host, "2001:db8::77")
        controller = host.controller()
        await controller.start({})
        await controller.create_network("net", enable_ipv6=True, options={SOURCES[6]: "2001:db8::77"})
        await controller.create_network("plain", enable_ipv6=True)
        box, _ = await add(controller, "box", "net")
        other, _ = await add(controller, "other", "plain")
        serve(host.neighbour, 7000, "tcp", "::")
        assert await soon("2001:db8::77", box.key, THEIRS, 7000)
        assert await see(box.key, NEIGHBOUR, 7000) == f"::ffff:{MACHINE}"  # IPv4 is masqueraded as ever
        assert await see(other.key, THEIRS, 7000) in (OURS, "2001:db8::77")
        with pytest.raises(InvalidParameter, match="host_ipv6 value: x"):
            await controller.create_network("bad", enable_ipv6=True, options={SOURCES[6]: "x"})
        await controller.stop(False)

    asyncio.run(run())


def test_flags_of_the_default_bridge(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        await asyncio.to_thread(lay_cable, host)
        flags = {
            "ipv6": True,
            "bip6": "fd00:66::1:1/64",
            "fixed_cidr_v6": "fd00:66::8000/113",
            "default_gateway_v6": "fd00:66::fe",
        }
        controller = host.controller(**flags)
        await controller.start({})
        box, endpoint = await add(controller, "box", port_bindings=[PortBinding("tcp", 80, "", 8080, 8080)])
        assert ip_address(endpoint.ipv6_address) in ip_network("fd00:66::8000/113")
        assert (endpoint.ipv6_prefixlen, endpoint.ipv6_gateway) == (64, "fd00:66::fe")

        def look(name: str) -> set[str]:
            with closing(NetlinkSocket()) as rtnl:
                link = rtnetlink.link_by_name(rtnl, name)
                assert link
                return {str(one) for one in rtnetlink.addresses(rtnl, link.index)}

        assert "fd00:66::1:1/64" in await asyncio.to_thread(look, "test0")
        assert f"{endpoint.ipv6_address}/64" in await asyncio.to_thread(
            in_network_namespace, box.key, lambda: look("eth0")
        )
        serve(host.neighbour, 7000, "tcp", "::")
        serve(box.key, 80, "tcp", "::")
        # Who is the way out is not there; then it is.
        assert await see(box.key, THEIRS, 7000) is None
        subprocess.run(["ip", "-6", "addr", "add", "fd00:66::fe/64", "dev", "test0", "nodad"], check=True)  # noqa: ASYNC221
        assert await soon(OURS, box.key, THEIRS, 7000)
        assert await soon(THEIRS, host.neighbour, OURS, 8080)
        await die(controller)
        again = host.controller(**flags)
        await again.start({"box": box.key})
        assert await soon(THEIRS, host.neighbour, OURS, 8080)
        _, second = await add(again, "second")
        assert ip_address(second.ipv6_address) in ip_network("fd00:66::8000/113")
        assert second.ipv6_address != endpoint.ipv6_address
        await again.stop(False)
        for bad, message in (
            ({"bip6": "fd00::x/64"}, "invalid CIDR address: fd00::x/64"),
            ({"fixed_cidr_v6": "ff00::/64"}, "not a valid IPv6 subnet"),
            ({"fixed_cidr_v6": "fe80::/10"}, "clashes with the Link-Local prefix"),
            ({"default_gateway_v6": "nobody"}, "invalid IP address: nobody"),
        ):
            refused = host.controller(ipv6=True, **bad)
            with pytest.raises(InvalidParameter, match=message):
                await refused.start({})
            refused.database.close()

    asyncio.run(run())


def test_networks_without_ipv4_publish_ports(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        await asyncio.to_thread(lay_cable, host)
        controller = host.controller()
        await controller.start({})
        for name in ("six", "other"):
            await controller.create_network(name, enable_ipv4=False, enable_ipv6=True)
        kind = "udp"
        bindings = [PortBinding(kind, 80, "", 8080, 8080)]
        bindings += [PortBinding(kind, port, "", port, port) for port in range(9000, 9004)]
        one, first = await add(controller, "one", "six", port_bindings=bindings)
        two, _ = await add(controller, "two", "other")
        assert {port.host_ip for port in first.ports} == {"::"} and first.ipv4_address == ""
        for port in (80, 81, 9002):
            serve(one.key, port, kind, "::")

        async def published() -> None:
            assert await soon(THEIRS, host.neighbour, OURS, 8080, kind)
            assert await soon(THEIRS, host.neighbour, OURS, 9002, kind)
            assert await see(None, "::1", 8080, kind) == first.ipv6_gateway
            assert await see(None, OURS, 8080, kind)
            assert await see(one.key, OURS, 9002, kind)  # itself
            assert await see(two.key, OURS, 8080, kind)
            assert await see(two.key, first.ipv6_address, 80, kind) is None
            assert await see(host.neighbour, first.ipv6_address, 81, kind) is None
            assert await see(host.neighbour, MACHINE, 8080, kind) is None

        await published()
        await die(controller)
        again = host.controller()
        await again.start({"one": one.key, "two": two.key})
        await published()
        await again.sandbox_destroy("one")
        assert await see(host.neighbour, OURS, 8080, kind) is None
        await again.stop(False)

    asyncio.run(run())


def test_without_rules_for_ipv6(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        await asyncio.to_thread(lay_cable, host)
        controller = host.controller(firewall_ipv6=False)
        await controller.start({})
        await controller.create_network("six", enable_ipv6=True)
        bindings = [PortBinding("tcp", port, "", port, port) for port in (80, 81, 82)]
        web, endpoint = await add(controller, "web", "six", port_bindings=bindings)
        for port in (80, 90):
            serve(web.key, port, "tcp", "::")
        # Relays serve published ports; whatever is not published is reached by whoever has a route.
        assert await soon(endpoint.ipv6_gateway, host.neighbour, OURS, 80)
        assert await soon(THEIRS, host.neighbour, endpoint.ipv6_address, 90)
        assert await see(host.neighbour, endpoint.ipv4_address, 90) is None
        assert await see(host.neighbour, MACHINE, 80) == f"::ffff:{NEIGHBOUR}"
        serve(host.neighbour, 7000, "tcp", "::")
        assert await see(web.key, THEIRS, 7000) == endpoint.ipv6_address  # nor is anything masqueraded
        assert controller.machine.firewall
        listing = await asyncio.to_thread(controller.machine.firewall.text)
        assert endpoint.ipv6_address not in listing and "/64" not in listing and "jump user" in listing
        await controller.stop(False)

    asyncio.run(run())


@pytest.mark.parametrize("filtered", [True, False])
def test_neighbours_that_are_kept_apart(host: Machine, serve: Serve, filtered: bool) -> None:
    """Without a filter for IPv6 they meet there."""

    async def run() -> None:
        controller = host.controller(firewall_ipv6=filtered)
        await controller.start({})
        pools = [IPAMPool(subnet="10.79.0.0/24"), IPAMPool(subnet="fd00:79::/64")]
        await controller.create_network("net", enable_ipv6=True, ipam=pools, options={ICC: "false"})
        _, one = await add(controller, "one", "net")
        two, _ = await add(controller, "two", "net")
        box = controller.sandbox("one")
        assert box
        serve(box.key, 80, "tcp", "::")
        if filtered:
            assert await see(two.key, one.ipv6_address, 80) is None
        else:
            assert await soon("fd00:79::3", two.key, one.ipv6_address, 80)
        assert await see(two.key, one.ipv4_address, 80) is None
        assert await asyncio.to_thread(controller.machine.firewall.repair) is False  # type: ignore[union-attr]
        await controller.stop(False)

    asyncio.run(run())
