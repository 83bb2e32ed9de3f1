"""Ranges of published ports: one element of the firewall for as many ports as keep their numbers."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from network.machines import MACHINE, NEIGHBOUR, Machine, Server, add, die, see
from network.test_firewall import comes_back, nft

from longshore.errors import System
from longshore.network.endpoint import PortBinding, PublishedPort
from longshore.network.ruleset import port_elements

Serve = Callable[..., Server]


def ranged(kind: str, first: int, last: int, host_ip: str = "", shift: int = 0) -> list[PortBinding]:
    return [PortBinding(kind, port, host_ip, port + shift, port + shift) for port in range(first, last + 1)]


def elements(listing: str, name: str) -> str:
    """What is in a set or map of a listed table."""
    found = re.search(rf"\t(?:set|map) {name} {{(.*?)\n\t}}", listing, re.DOTALL)
    assert found
    inside = re.search(r"elements = {(.*)}", found[1], re.DOTALL)
    return " ".join(inside[1].split()) if inside else ""


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_range_is_reached_as_any_port(host: Machine, serve: Serve, kind: str) -> None:
    async def run() -> None:
        controller = host.controller(allow_direct_routing=True)
        await controller.start({})
        bindings = ranged(kind, 8000, 8199) + ranged(kind, 90, 92, "127.0.0.1")
        bindings += [*ranged(kind, 300, 301, shift=1000), PortBinding(kind, 7)]
        web, endpoint = await add(controller, "web", port_bindings=bindings)
        client, _ = await add(controller, "client")
        firewall = controller.machine.firewall
        assert firewall
        target = endpoint.ipv4_address
        listing = await asyncio.to_thread(firewall.text)
        assert elements(listing, "ranges_any4") == f"{kind} . 8000-8199 : {target}"
        assert elements(listing, "ranges4") == f"127.0.0.1 . {kind} . 90-92 : {target}"
        assert elements(listing, "published_any4").count(target) == 3
        for port in (8000, 8100, 8199, 8200, 91, 301):
            serve(web.key, port, kind)

        async def published() -> None:
            for port in (8000, 8100, 8199, 1301):
                assert await see(host.neighbour, MACHINE, port, kind) == NEIGHBOUR, port
            assert await see(None, "127.0.0.1", 8100, kind) == endpoint.ipv4_gateway
            assert await see(web.key, MACHINE, 8199, kind)  # itself, there and back
            assert await see(client.key, MACHINE, 8199, kind)
            assert await see(None, "127.0.0.1", 91, kind) and await see(None, MACHINE, 91, kind) is None
            assert await see(host.neighbour, MACHINE, 8200, kind) is None
            assert await see(host.neighbour, target, 8100, kind)  # routed by way of us
            assert await see(host.neighbour, target, 8200, kind) is None

        await published()
        await nft("flush ruleset")
        assert await asyncio.to_thread(comes_back, NEIGHBOUR, host.neighbour, MACHINE, 8100, kind)
        await published()
        await die(controller)
        await nft("flush ruleset")
        again = host.controller(allow_direct_routing=True)
        await again.start({"web": web.key, "client": client.key})
        await published()
        with pytest.raises(System, match="8150 failed: port is already allocated"):
            await add(again, "thief", port_bindings=ranged(kind, 8150, 8250))
        beside, _ = await add(again, "beside", port_bindings=ranged(kind, 8200, 8205))
        serve(beside.key, 8200, kind)
        await again.sandbox_destroy("web")
        assert await see(host.neighbour, MACHINE, 8199, kind) is None
        assert await see(host.neighbour, MACHINE, 8200, kind) == NEIGHBOUR
        await again.sandbox_destroy("beside")
        assert again.machine.firewall
        listing = await asyncio.to_thread(again.machine.firewall.text)
        for name in ("ranges", "ranges_any", "published", "published_any", "open", "open_ranges"):
            assert elements(listing, f"{name}4") == elements(listing, f"{name}6") == ""
        await again.stop(False)

    asyncio.run(run())


def test_ranges_by_ipv6_and_by_routes(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        modes = {f"com.docker.network.bridge.gateway_mode_ipv{version}": "routed" for version in (4, 6)}
        await controller.create_network("six", enable_ipv6=True)
        await controller.create_network("routed", enable_ipv6=True, options=modes)
        web, endpoint = await add(controller, "web", "six", port_bindings=ranged("tcp", 8000, 8009))
        bindings = ranged("tcp", 8000, 8009, shift=3) + ranged("tcp", 8005, 8014, shift=50)
        other, routed = await add(controller, "other", "routed", port_bindings=bindings)
        assert controller.machine.firewall
        listing = await asyncio.to_thread(controller.machine.firewall.text)
        assert elements(listing, "ranges_any6") == f"tcp . 8000-8009 : {endpoint.ipv6_address}"
        assert elements(listing, "open_ranges6") == f"{routed.ipv6_address} . tcp . 8000-8014"
        for box in (web, other):
            for port in (8005, 8014, 8015):
                serve(box.key, port, "tcp", "::")
        assert await asyncio.to_thread(comes_back, endpoint.ipv6_gateway, None, "::1", 8005)
        assert await see(other.key, MACHINE, 8005)
        assert await see(web.key, routed.ipv4_address, 8014) and await see(web.key, routed.ipv6_address, 8014)
        assert await see(web.key, routed.ipv4_address, 8015) is None
        await controller.stop(False)

    asyncio.run(run())


def test_a_range_conflicts_with_what_the_machine_listens_to(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        taken = socket.create_server(("0.0.0.0", 8055))
        with pytest.raises(System, match=r"0:8055:172\.17\.0\.2:8055/tcp: address already in use"):
            await add(controller, "web", port_bindings=ranged("tcp", 8000, 8099))
        taken.close()
        web, endpoint = await add(controller, "web", port_bindings=ranged("tcp", 8000, 8099))
        with pytest.raises(OSError, match="already in use"):
            socket.create_server(("0.0.0.0", 8055))
        # Taken away behind our back, ports are still given back.
        await nft("flush map inet longshore ranges_any4")
        await web.leave(endpoint)
        socket.create_server(("0.0.0.0", 8055)).close()
        assert await add(controller, "next", port_bindings=ranged("tcp", 8000, 8099))
        await controller.stop(False)

    asyncio.run(run())


PORTS = st.builds(
    PublishedPort,
    st.sampled_from(["tcp", "udp"]),
    st.sampled_from(["172.17.0.2", "fd00::2"]),
    st.integers(1, 12),
    st.sampled_from(["0.0.0.0", "::", "127.0.0.1"]),
    st.integers(0, 12),
    st.booleans(),
)


@given(st.lists(PORTS, unique_by=lambda one: (one.protocol, one.container_ip, one.host_ip, one.host_port)))
def test_elements_mean_the_ports_they_were_made_of(ports: list[PublishedPort]) -> None:
    found = list(port_elements(ports))
    meant = [one for name, element in found for one in expand(name, element)]
    assert len(meant) == len(set(meant))
    wanted: set[tuple[str, ...]] = set()
    for port in ports:
        if port.direct:
            wanted.add(("open", port.container_ip, port.protocol, str(port.container_port)))
        if port.host_port and (":" in port.host_ip) == (":" in port.container_ip):
            place = "any" if port.host_ip in ("0.0.0.0", "::") else port.host_ip
            target = port.container_ip, str(port.container_port)
            wanted.add((place, port.protocol, str(port.host_port), *target))
    assert set(meant) == wanted
    # Never two elements where one would do.
    ends = [element.rpartition(" . ")[2] for name, element in found if name.startswith("open_ranges")]
    assert all("-" in one for one in ends)


def expand(name: str, element: str) -> Iterable[tuple[str, ...]]:
    key, _, value = element.partition(" : ")
    *place, protocol, span = key.split(" . ")
    first, _, last = span.partition("-")
    for number in range(int(first), int(last or first) + 1):
        if name.startswith("open"):
            yield "open", *place, protocol, str(number)
        else:
            target = value.split(" . ") if " . " in value else [value, str(number)]
            assert ("_any" in name) == (not place) and name[-1] == ("6" if ":" in value else "4")
            yield place[0] if place else "any", protocol, str(number), *target
