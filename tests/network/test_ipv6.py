"""Packets by IPv6: what may pass and what may not, as for IPv4."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_interface
from pathlib import Path

import pytest
from network.machines import Machine, Server, add, see

from longshore.linux import rtnetlink
from longshore.linux.namespaces import in_network_namespace
from longshore.linux.netlink import NetlinkSocket
from longshore.network.endpoint import PortBinding
from longshore.network.ipam import IPAMPool

Serve = Callable[..., Server]
MACHINE6, NEIGHBOUR6 = "2001:db8::1", "2001:db8::2"
MODE = "com.docker.network.bridge.gateway_mode_ipv6"
ICC = "com.docker.network.bridge.enable_icc"
TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"
WEB = [PortBinding("tcp", 80, "", 8080, 8080)]
V6 = ("tcp", "::")


@pytest.fixture
def wired(host: Machine) -> Machine:
    """The wire has IPv6, and nobody waits to be sure of addresses."""
    Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
    for namespace, address in ((None, MACHINE6), (host.neighbour, NEIGHBOUR6)):

        def set_up(address: str = address) -> None:
            Path("/proc/sys/net/ipv6/conf/wire0/accept_dad").write_text("0")
            with closing(NetlinkSocket()) as rtnl:
                wire = rtnetlink.link_by_name(rtnl, "wire0")
                assert wire
                rtnetlink.add_address(rtnl, wire.index, ip_interface(f"{address}/64"))
                if address == NEIGHBOUR6:
                    rtnetlink.set_default_route(rtnl, wire.index, MACHINE6, 6)

        in_network_namespace(namespace, set_up) if namespace else set_up()
    return host


async def seen(*arguments: object) -> str | None:
    """`see`, with some patience: links still make sure of their own addresses."""
    for _ in range(8):
        if found := await see(*arguments):
            return found
    return None


def six(number: int) -> list[IPAMPool]:
    return [IPAMPool(subnet=f"fd00:{number}::/64")]


def test_what_reaches_what(wired: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = wired.controller()
        await controller.start({})
        for number, name in ((1, "one"), (2, "two")):
            await controller.create_network(name, enable_ipv6=True, ipam=six(number))
        bindings = [*WEB, PortBinding("tcp", 80, "::1", 8081, 8081)]
        web, endpoint = await add(controller, "web", "one", port_bindings=bindings)
        mate, _ = await add(controller, "mate", "one")
        away, far = await add(controller, "away", "two")
        for port in (80, 81):
            serve(web.key, port, *V6)
        serve(wired.neighbour, 7000, *V6)
        address = endpoint.ipv6_address
        assert await seen(mate.key, address, 81)
        # Published, to everybody, by addresses of the machine; neighbours by who they are.
        assert await seen(wired.neighbour, MACHINE6, 8080) == NEIGHBOUR6
        assert await seen(away.key, MACHINE6, 8080)
        assert await seen(web.key, MACHINE6, 8080) and await seen(mate.key, MACHINE6, 8080)
        assert await seen(None, MACHINE6, 8080) and await seen(None, "::1", 8080)
        # Not published, or for the machine alone.
        assert await seen(None, "::1", 8081)
        for there in (MACHINE6, endpoint.ipv6_gateway):
            assert await see(wired.neighbour, there, 8081) is None
            assert await see(away.key, there, 8081) is None
        for port in (80, 81):
            assert await see(wired.neighbour, address, port) is None
            assert await see(away.key, address, port) is None
        # The way out, in the name of the machine, but not of another network's container.
        assert await seen(web.key, NEIGHBOUR6, 7000) == MACHINE6
        assert await asyncio.to_thread(forged, wired, web.key, address)
        assert not await asyncio.to_thread(forged, wired, web.key, far.ipv6_address)
        await controller.stop(False)

    asyncio.run(run())


def forged(machine: Machine, namespace: str, source: str) -> bool:
    """Whether a datagram arrives that the namespace sends to the neighbour in the name of `source`."""

    def listen() -> socket.socket:
        one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        one.bind((NEIGHBOUR6, 7001))
        one.settimeout(0.5)
        return one

    def send() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.IPPROTO_IPV6, 75, 1)  # IPV6_TRANSPARENT: any source will do
            client.bind((source, 0))
            client.sendto(b"?", (NEIGHBOUR6, 7001))

    with in_network_namespace(machine.neighbour, listen) as server:
        in_network_namespace(namespace, send)
        try:
            return bool(server.recv(10))
        except TimeoutError:
            return False


@pytest.mark.parametrize(
    ("mode", "published", "direct", "unpublished"),
    [
        ("nat-unprotected", True, True, True),
        ("routed", False, True, False),
    ],
)
def test_gateway_modes(
    wired: Machine, serve: Serve, mode: str, published: bool, direct: bool, unpublished: bool
) -> None:
    async def run() -> None:
        controller = wired.controller()
        await controller.start({})
        await controller.create_network(
            "net", options={MODE: mode}, enable_ipv4=False, enable_ipv6=True, ipam=six(1)
        )
        web, endpoint = await add(controller, "web", "net", port_bindings=WEB)
        for port in (80, 81):
            serve(web.key, port, *V6)
        serve(wired.neighbour, 7000, *V6)
        outside = await seen(web.key, NEIGHBOUR6, 7000)
        assert outside == (endpoint.ipv6_address if mode == "routed" else MACHINE6)
        assert (await see(wired.neighbour, MACHINE6, 8080) is not None) is published
        assert (await see(wired.neighbour, endpoint.ipv6_address, 80) is not None) is direct
        assert (await see(wired.neighbour, endpoint.ipv6_address, 81) is not None) is unpublished
        await controller.stop(False)

    asyncio.run(run())


def test_trusted_links_and_neighbours_kept_apart(wired: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = wired.controller()
        await controller.start({})
        options = {TRUSTED: "wire0", ICC: "false"}
        await controller.create_network("net", options=options, enable_ipv6=True, ipam=six(1))
        web, endpoint = await add(controller, "web", "net", port_bindings=WEB)
        mate, _ = await add(controller, "mate", "net")
        for port in (80, 81):
            serve(web.key, port, *V6)
        assert await seen(wired.neighbour, endpoint.ipv6_address, 80) == NEIGHBOUR6
        assert await see(wired.neighbour, endpoint.ipv6_address, 81) is None
        assert await see(mate.key, endpoint.ipv6_address, 80) is None
        assert await seen(mate.key, MACHINE6, 8080)  # published is published
        await controller.stop(False)

    asyncio.run(run())
