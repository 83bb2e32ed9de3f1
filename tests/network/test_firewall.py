"""The firewall's table beside other people's, and what of it is theirs."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from network.machines import MACHINE, NEIGHBOUR, Machine, Server, add, reach, see

from longshore.errors import InvalidParameter
from longshore.network.endpoint import PortBinding
from longshore.network.ipam import IPAMPool

Serve = Callable[..., Server]
WEB = [PortBinding("tcp", 80, "", 8080, 8080)]


async def nft(commands: str) -> str:
    def run() -> str:
        return subprocess.run(
            ["nft", "-f", "-"], input=commands, capture_output=True, text=True, check=True
        ).stdout

    return await asyncio.to_thread(run)


def comes_back(wanted: object, *arguments: object) -> bool:
    deadline = time.monotonic() + 10
    while reach(*arguments) != wanted:  # type: ignore[arg-type]
        if time.monotonic() > deadline:
            return False
    return True


def test_flushed_rules_come_back_and_nobody_elses_are_touched(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        web, endpoint = await add(controller, "web", port_bindings=WEB)
        for port in (80, 81):
            serve(web.key, port)
        theirs = "table inet theirs { set kept { type ipv4_addr; elements = { 192.0.2.1 }\n}\n}\n"
        for taken in (
            "flush ruleset\n" + theirs,
            "delete table inet longshore",
            "flush table inet longshore",
            "flush chain inet longshore forward",
        ):
            await nft(taken)
            assert await asyncio.to_thread(comes_back, NEIGHBOUR, host.neighbour, MACHINE, 8080)
            closed = await asyncio.to_thread(comes_back, None, host.neighbour, endpoint.ipv4_address, 81)
            assert closed, taken
            assert "192.0.2.1" in await nft("list table inet theirs")
        # What is published in the very moment of a flush is there after it.
        for number in range(3):
            _, (_, late) = await asyncio.gather(
                nft("flush ruleset"),
                add(controller, f"late{number}", port_bindings=[PortBinding("tcp", 80)]),
            )
            serve(controller.sandbox(f"late{number}").key, 80)  # type: ignore[union-attr]
            port = late.ports[0].host_port
            assert await asyncio.to_thread(comes_back, NEIGHBOUR, host.neighbour, MACHINE, port)
        await controller.stop(False)
        assert "longshore" not in await nft("list ruleset")

    asyncio.run(run())


def test_neighbours_stay_apart_after_a_flush(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller(icc=False)
        await controller.start({})
        web, endpoint = await add(controller, "web")
        client, _ = await add(controller, "client")
        serve(web.key, 80)
        for taken in ("flush ruleset", "delete table bridge longshore"):
            await nft(taken)
            closed = (None, client.key, endpoint.ipv4_address, 80)
            assert await asyncio.to_thread(comes_back, *closed), taken
        await controller.stop(False)
        assert "longshore" not in await nft("list ruleset")

    asyncio.run(run())


def test_users_have_a_chain_of_their_own_that_stays(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await nft(
            "add set inet longshore user_friends { type ipv4_addr; }\n"
            f"add element inet longshore user_friends {{ {NEIGHBOUR} }}\n"
            "add chain inet longshore user_more\n"
            "add rule inet longshore user_more tcp dport 80 drop\n"
            "add rule inet longshore user ip saddr @user_friends tcp dport 81 accept\n"
            "add rule inet longshore user jump user_more\n"
        )
        for number in range(3):
            web, endpoint = await add(
                controller, f"web{number}", port_bindings=[*WEB, PortBinding("tcp", 82, "", 8082, 8082)]
            )
            for port in (80, 81, 82):
                serve(web.key, port)
            assert await see(host.neighbour, MACHINE, 8080) is None  # dropped by them
            assert await see(host.neighbour, endpoint.ipv4_address, 81)  # accepted by them
            assert await see(host.neighbour, MACHINE, 8082)
            if number == 0:
                await nft("flush chain inet longshore forward")
                closed = (None, host.neighbour, endpoint.ipv4_address, 82)
                assert await asyncio.to_thread(comes_back, *closed)
            await controller.stop(False)
            controller = host.controller()
            await controller.start({})
        await controller.stop(False)
        left = await nft("list ruleset")
        assert "user_friends" in left and "published" not in left

    asyncio.run(run())


def test_users_chain_survives_a_flush_of_everything(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        firewall = controller.machine.firewall
        assert firewall
        bindings = [*WEB, PortBinding("tcp", 81, "", 8081, 8081)]
        web, _ = await add(controller, "web", port_bindings=bindings)
        for port in (80, 81):
            serve(web.key, port)
        friends = "user_friends { type ipv4_addr; }"
        await nft(
            f"add set inet longshore {friends}\n"
            "add rule inet longshore user tcp dport 80 ip saddr != @user_friends drop\n"
        )
        assert await asyncio.to_thread(comes_back, None, host.neighbour, MACHINE, 8080)
        await nft(f"add element inet longshore user_friends {{ {NEIGHBOUR} }}")
        assert await asyncio.to_thread(comes_back, NEIGHBOUR, host.neighbour, MACHINE, 8080)
        await nft(f"delete element inet longshore user_friends {{ {NEIGHBOUR} }}")
        deadline = time.monotonic() + 10
        while NEIGHBOUR in firewall.known_of_users() or "dport 80" not in firewall.known_of_users():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        for taken in ("flush ruleset", "delete table inet longshore"):
            await nft(taken)
            assert await asyncio.to_thread(comes_back, NEIGHBOUR, host.neighbour, MACHINE, 8081)
            assert await see(host.neighbour, MACHINE, 8080) is None, taken
        # Whoever brings rules of their own for the chain along means them.
        await nft("flush ruleset\ntable inet longshore { chain user { tcp dport 81 drop; }\n}\n")
        assert await asyncio.to_thread(comes_back, NEIGHBOUR, host.neighbour, MACHINE, 8080)
        assert await see(host.neighbour, MACHINE, 8081) is None
        await controller.stop(False)

    asyncio.run(run())


EVIL = "%x }; add table inet evil; #"


SAID: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"subnet": f"fd00:5::{EVIL}/64"}, {}),
    ({"subnet": "fd00:5::/64", "gateway": f"fd00:5::1{EVIL}"}, {}),
    ({"subnet": "fd00:5::/64", "ip_range": f"fd00:5::{EVIL}/80"}, {}),
    ({"subnet": "fd00:5::/64", "aux_addresses": {"a": f"fd00:5::9{EVIL}"}}, {}),
    ({}, {"com.docker.network.host_ipv6": f"fd00:5::1{EVIL}"}),
    ({}, {"com.docker.network.bridge.host_binding_ipv4": f"fd00:5::1{EVIL}"}),
    ({}, {"com.docker.network.bridge.name": 'x" }; add table inet evil'}),
    ({}, {"com.docker.network.bridge.name": "*"}),
    ({}, {"com.docker.network.bridge.trusted_host_interfaces": 'x" . "y'}),
    ({}, {"com.docker.network.container_iface_prefix": "../../"}),
    ({}, {"com.docker.network.container_iface_prefix": "much-too-long-for-it"}),
]


def test_what_users_say_is_no_rule(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        for pool, options in SAID:
            pools = [IPAMPool(**pool)] if pool else []
            with pytest.raises(InvalidParameter):
                await controller.create_network("net", enable_ipv6=True, ipam=pools, options=options)
        await controller.create_network("six", enable_ipv6=True, ipam=[IPAMPool(subnet="fd00:5::/64")])
        with pytest.raises(InvalidParameter):
            await add(controller, "box", "six", ipv6_address=f"fd00:5::7{EVIL}")
        assert "evil" not in await nft("list ruleset")
        await controller.stop(False)

    asyncio.run(run())


def test_what_was_taken_away_piece_by_piece_is_no_obstacle(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller(icc=False)
        await controller.start({})
        web, _ = await add(controller, "web", port_bindings=WEB)
        for taken in ("inet longshore published_any4", "inet longshore same", "bridge longshore isolated"):
            await nft(f"flush set {taken}" if "any4" not in taken else f"flush map {taken}")
        await controller.sandbox_destroy("web")
        await controller.settled()
        web, _ = await add(controller, "web", port_bindings=WEB)
        serve(web.key, 80)
        assert await see(host.neighbour, MACHINE, 8080) == NEIGHBOUR
        for chain in ("prerouting", "output", "postrouting", "loopback", "spoofing"):
            await nft(f"flush chain inet longshore {chain}")
            deadline = time.monotonic() + 10
            while "{" not in (listed := await nft(f"list chain inet longshore {chain}")) or (
                "ip" not in listed.partition("policy accept;")[2]
            ):
                assert time.monotonic() < deadline, chain
        assert await see(host.neighbour, MACHINE, 8080) == NEIGHBOUR
        await controller.stop(False)

    asyncio.run(run())
