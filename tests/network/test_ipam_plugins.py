"""Networks whose addresses a plug-in manages, and those that have none: what is asked, and given back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from network.machines import NEIGHBOUR, Server, add, die, see
from network.office import Office

from longshore.errors import EngineError, Forbidden, InvalidParameter, NotFound, System
from longshore.network.ipam import IPAMPool
from longshore.network.sandbox_record import SandboxOptions

Serve = Callable[..., Server]
GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}


def test_a_life_of_a_network(office: Office, serve: Serve) -> None:
    async def run() -> None:
        plugin = office.addressing
        controller = office.controller()
        await controller.start({})
        with pytest.raises(NotFound, match="could not find plugin nope in v1 plugin registry"):
            await controller.create_network("app", ipam_driver="nope")
        # The first pool that it offers is in use on the machine: it is held, and given back in the end.
        network = await controller.create_network(
            "app", enable_ipv6=True, ipam_driver="office", ipam_options={"floor": "3"}
        )
        assert [pool.subnet for pool in network.pools] == ["10.91.0.0/24", "fd00:91::/64"]
        assert plugin.asked("RequestPool")[0] == {
            "AddressSpace": "here",
            "Pool": "",
            "SubPool": "",
            "Options": {"floor": "3"},
            "V6": False,
        }
        assert plugin.asked("ReleasePool") == [{"PoolID": "here-198.51.100.0/25"}]
        assert [one["Options"] for one in plugin.asked("RequestAddress")] == [GATEWAY, GATEWAY]
        web, endpoint = await add(controller, "web", "app")
        assert (endpoint.ipv4_address, endpoint.ipv4_gateway) == ("10.91.0.253", "10.91.0.254")
        assert endpoint.mac_address == "02:42:0a:5b:00:fd"
        assert plugin.asked("RequestAddress")[-1]["Options"] is None
        serve(office.host.neighbour, 7000)
        assert await see(web.key, NEIGHBOUR, 7000) == "198.51.100.1"
        with pytest.raises(InvalidParameter, match="only when connecting to networks with user configured"):
            await add(controller, "choosy", "app", ipv4_address="10.91.0.7")
        await web.leave(endpoint)
        again = await web.join(network, endpoint_named("web"))
        assert again.ipv4_address == endpoint.ipv4_address
        await controller.sandbox_destroy("web")
        await controller.settled()
        await controller.remove_network(network)
        assert office.is_empty()
        await controller.stop(False)

    asyncio.run(run())


def endpoint_named(name: str) -> Any:
    from longshore.network.endpoint import EndpointOptions

    return EndpointOptions(name=name)


def test_what_a_user_chooses(office: Office) -> None:
    async def run() -> None:
        plugin = office.addressing
        plugin.capabilities = {"RequiresMACAddress": True}
        controller = office.controller()
        await controller.start({})
        pool = IPAMPool(
            subnet="10.95.0.0/16",
            ip_range="10.95.3.0/24",
            gateway="10.95.0.9",
            aux_addresses={"printer": "10.95.0.10", "router": "10.95.0.9"},
        )
        network = await controller.create_network("app", ipam=[pool], ipam_driver="office")
        asked = plugin.asked("RequestPool")[0]
        assert (asked["Pool"], asked["SubPool"]) == ("10.95.0.0/16", "10.95.3.0/24")
        assert [(one["Address"], one["Options"]) for one in plugin.asked("RequestAddress")] == [
            ("10.95.0.9", GATEWAY),
            ("10.95.0.10", None),
        ]
        mac = "com.docker.network.endpoint.macaddress"
        _, first = await add(controller, "one", "app", ipv4_address="10.95.7.7")
        assert first.ipv4_address == "10.95.7.7"
        assert plugin.asked("RequestAddress")[-1]["Options"] == {mac: first.mac_address}
        _, second = await add(controller, "two", "app", mac_address="02:00:00:00:00:77")
        assert plugin.asked("RequestAddress")[-1]["Options"] == {mac: "02:00:00:00:00:77"}
        assert second.mac_address == "02:00:00:00:00:77"
        with pytest.raises(System, match=r"^remote: 10\.95\.7\.7 is taken$"):
            await add(controller, "three", "app", ipv4_address="10.95.7.7")
        with pytest.raises(InvalidParameter, match="no configured subnet contains"):
            await add(controller, "three", "app", ipv4_address="10.96.0.1")
        await controller.create_network(
            "settings", config_only=True, ipam_driver="office", ipam=[IPAMPool(subnet="10.97.0.0/24")]
        )
        taking = await controller.create_network("taking", config_from="settings")
        assert taking.record.ipam_driver == "office" and taking.pools[0].pool_id == "here-10.97.0.0/24"
        with pytest.raises(Forbidden, match="user specified configurations are not supported"):
            await controller.create_network("both", config_from="settings", ipam_driver="office")
        with pytest.raises(Forbidden, match="networks have overlapping IPv4"):
            plugin.pools.clear()  # It gives what it gave before.
            await controller.create_network(
                "other", ipam_driver="office", ipam=[IPAMPool(subnet="10.95.0.0/16")]
            )
        assert network.pools[0].gateway == "10.95.0.9"
        await controller.stop(False)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "after"),
    [
        ("GetDefaultAddressSpaces", 0),
        ("RequestPool", 0),
        ("RequestPool", 1),
        ("RequestAddress", 0),
        ("RequestAddress", 1),
        ("RequestAddress", 2),
        ("RequestAddress", 3),
    ],
)
def test_what_fails_gives_everything_back(office: Office, method: str, after: int) -> None:
    async def run() -> None:
        plugin = office.addressing
        controller = office.controller()
        await controller.start({})
        plugin.failing = {method: after}
        made = None
        with suppress(EngineError):
            made = await controller.create_network(
                "app",
                enable_ipv6=True,
                ipam_driver="office",
                ipam=[IPAMPool(subnet="10.95.0.0/24", aux_addresses={"a": "10.95.0.9"})],
            )
        assert made is None or (method, after) == ("RequestAddress", 3)
        if made is not None:
            with pytest.raises(EngineError, match="remote: no more paper"):
                await add(controller, "one", "app")
            assert not made.endpoints
            plugin.failing = {}
            await controller.sandbox_destroy("one")
            await controller.settled()
            await controller.remove_network(made)
        assert office.is_empty(), plugin.calls
        plugin.failing = {}
        # A driver that fails after its addresses were given.
        with pytest.raises(System, match="no more cables"):
            office.cabling.failing = "CreateNetwork"
            await controller.create_network("lan", "office", ipam_driver="office")
        assert office.is_empty()
        await controller.stop(False)

    asyncio.run(run())


@pytest.mark.parametrize("forgetful", [False, True])
def test_a_restart_asks_nothing_twice(office: Office, serve: Serve, forgetful: bool) -> None:
    async def run() -> None:
        plugin = office.addressing
        plugin.capabilities = {"RequiresRequestReplay": forgetful}
        controller = office.controller()
        await controller.start({})
        pool = IPAMPool(subnet="10.95.0.0/24", aux_addresses={"a": "10.95.0.9"})
        network = await controller.create_network("app", ipam_driver="office", ipam=[pool])
        alive, kept = await add(controller, "alive", "app")
        _, lost = await add(controller, "dead", "app")
        await die(controller)
        plugin.calls.clear()
        before = {id: set(taken) for id, taken in plugin.taken.items()}
        if forgetful:
            plugin.pools.clear()
            plugin.taken.clear()
        again = office.controller()
        await again.start({"alive": alive.key})
        requested = [one["Address"] for one in plugin.asked("RequestAddress")]
        if forgetful:
            assert plugin.asked("RequestPool")[0]["Pool"] == "10.95.0.0/24"
            assert requested == [network.pools[0].gateway, "10.95.0.9", kept.ipv4_address]
        else:
            assert not requested and not plugin.asked("RequestPool")
            assert plugin.asked("ReleaseAddress") == [
                {"PoolID": network.pools[0].pool_id, "Address": lost.ipv4_address}
            ]
        assert set(plugin.taken[network.pools[0].pool_id]) == before[network.pools[0].pool_id] - {
            lost.ipv4_address
        }
        _, new = await add(again, "new", "app")
        assert new.ipv4_address == lost.ipv4_address
        for id in ("alive", "new"):
            await again.sandbox_destroy(id)
        await again.settled()
        # A crash in the middle of a removal: the next start finishes it.
        removed = again.network("app")
        removed.record.in_delete = True
        await asyncio.to_thread(again.store.save, "network", removed.id, removed.record, durable=True)
        await die(again)
        last = office.controller()
        await last.start({})
        assert not [one for one in last.networks() if one.name == "app"] and office.is_empty()
        await last.stop(False)

    asyncio.run(run())


def test_a_plugin_that_is_gone_stops_nobody(office: Office) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        network = await controller.create_network("app", ipam_driver="office")
        await add(controller, "one", "app")
        for method in ("ReleaseAddress", "ReleasePool"):
            office.addressing.failing[method] = 0
        await controller.sandbox_destroy("one")
        await controller.settled()
        await controller.remove_network(network)
        assert not controller.sandboxes()
        await controller.stop(False)

    asyncio.run(run())


def test_a_network_stays_while_somebody_is_on_the_way_to_it(office: Office) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        network = await controller.create_network("app", ipam_driver="office")
        honest, asked, answered = office.addressing.call, threading.Event(), threading.Event()

        def slow(method: str, given: Any = None) -> dict[str, Any]:
            if method.endswith("RequestAddress"):
                asked.set()
                assert answered.wait(20)
            return honest(method, given)

        office.addressing.call = slow  # type: ignore[method-assign]
        joining = asyncio.create_task(add(controller, "slow", "app"))
        assert await asyncio.to_thread(asked.wait, 20)
        with pytest.raises(Forbidden, match="has active endpoints"):
            await controller.remove_network(network)
        # A client that goes away meanwhile: what the plug-in gives is given back.
        joining.cancel()
        answered.set()
        with pytest.raises(asyncio.CancelledError):
            await joining
        await controller.sandbox_destroy("slow")
        await controller.settled()
        await controller.remove_network(network)
        assert office.is_empty()
        with pytest.raises(Forbidden, match="is being removed"):
            sandbox = await controller.create_sandbox("late", SandboxOptions())
            await sandbox.join(network, endpoint_named("late"))
        await controller.stop(False)

    asyncio.run(run())


def test_nonsense_is_refused(office: Office) -> None:
    async def run() -> None:
        plugin, controller = office.addressing, office.controller()
        await controller.start({})
        honest = plugin.call

        def lie(method: str, answer: dict[str, Any]) -> None:
            plugin.call = lambda name, given=None: (  # type: ignore[method-assign]
                {**honest(name, given), **answer} if name.endswith(method) else honest(name, given)
            )

        for method, answer, message in (
            ("RequestPool", {"Pool": "here"}, "invalid CIDR address: here"),
            ("RequestPool", {"Pool": "fd00::/64"}, "is no IPv4 pool"),
            ("RequestPool", {"Data": {"com.docker.network.gateway": "?"}}, "failed to parse gateway address"),
            ("RequestAddress", {"Address": ""}, "did not return any IP address"),
            ("RequestAddress", {"Address": "10.0.0.1"}, "invalid CIDR address: 10.0.0.1"),
        ):
            lie(method, answer)
            with pytest.raises(EngineError, match=message):
                await controller.create_network("app", ipam_driver="office")
            plugin.taken.clear()
            plugin.pools.clear()
        lie("RequestPool", {"Data": {"com.docker.network.gateway": "10.91.0.1/24"}})
        plugin.calls.clear()
        network = await controller.create_network("app", ipam_driver="office")
        assert network.pools[0].gateway == "10.91.0.1" and not plugin.asked("RequestAddress")
        lie("RequestAddress", {"Address": "10.91.0.77/24"})
        await add(controller, "one", "app")
        with pytest.raises(System, match=r"gave 10\.91\.0\.77, which is in use"):
            await add(controller, "two", "app")
        await controller.stop(False)

    asyncio.run(run())


def test_networks_without_addresses(office: Office) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        for driver in ("bridge", "macvlan"):
            with pytest.raises(InvalidParameter, match=r"^ipv4 pool is empty$"):
                await controller.create_network("app", driver, ipam_driver="null")
        with pytest.raises(InvalidParameter, match="does not handle specific address pool requests"):
            await controller.create_network(
                "app", "office", ipam_driver="null", ipam=[IPAMPool(subnet="10.1.0.0/16")]
            )
        network = await controller.create_network("lan", "office", ipam_driver="null")
        assert network.pools[0].subnet == "0.0.0.0/0" and network.pools[0].gateway == ""
        assert office.cabling.asked("CreateNetwork")[-1]["IPv4Data"] == [
            {"AddressSpace": "null", "Pool": "0.0.0.0/0"}
        ]
        office.cabling.joined = {"DisableGatewayService": True}
        _, endpoint = await add(controller, "box", "lan")
        assert endpoint.ipv4_address == "" and endpoint.interface == "lan0"
        await controller.sandbox_destroy("box")
        # The plug-in may know an address, as one that asks a DHCP server.
        office.cabling.created = {"Address": "10.90.0.44/24"}
        _, endpoint = await add(controller, "box", "lan")
        assert (endpoint.ipv4_address, endpoint.ipv4_prefixlen) == ("10.90.0.44", 24)
        await controller.sandbox_destroy("box")
        await controller.settled()
        await controller.stop(False)
        again = office.controller()
        await again.start({})
        assert again.network("lan").pools[0].subnet == "0.0.0.0/0"
        await again.stop(False)

    asyncio.run(run())
