"""Networks whose driver is a plug-in: what it is asked, and what becomes of the links it makes."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable

import pytest
from network.cabling import Cabling, Served
from network.machines import MACHINE, Machine, Server, add, die, see

from longshore.errors import NotFound, System
from longshore.network.ipam import IPAMPool
from longshore.plugins import Plugin, plugin_of

Serve = Callable[..., Server]


def test_a_plugin_as_network_driver(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        plugin = Cabling()
        server = Served(host.root / "plugins" / "cabling.sock", plugin)

        def find(name: str) -> Plugin:
            return plugin_of(name, host.root / "plugins", [])

        controller = host.controller(plugin=find)
        await controller.start({})
        with pytest.raises(NotFound, match="could not find plugin nope in v1 plugin registry"):
            await controller.create_network("lan", "nope")
        pool = IPAMPool(subnet="10.90.0.0/24", gateway="10.90.0.1", aux_addresses={"a": "10.90.0.9"})
        network = await controller.create_network("lan", "cabling", ipam=[pool], options={"speed": "10"})
        (asked,) = plugin.asked("CreateNetwork")
        assert asked["Options"]["com.docker.network.generic"] == {"speed": "10"}
        assert asked["IPv4Data"][0]["AuxAddresses"] == {"a": "10.90.0.9/24"}
        one, first = await add(controller, "one", "lan")
        two, second = await add(controller, "two", "lan", mac_address="02:00:00:00:00:77")
        assert (first.interface, first.mac_address) == ("lan0", "02:00:00:00:0c:ab")
        assert plugin.asked("CreateEndpoint")[1]["Interface"] == {
            "Address": f"{second.ipv4_address}/24",
            "AddressIPv6": "",
            "MacAddress": "02:00:00:00:00:77",
        }
        serve(one.key, 80)
        # The plug-in's bridge takes its time to see that its ports are connected.
        seen = [await see(two.key, first.ipv4_address, 80) for _ in range(6)]
        assert second.ipv4_address in seen
        serve("/proc/thread-self/ns/net", 7000)
        assert await see(two.key, MACHINE, 7000) == second.ipv4_address  # by its gateway
        route = ["nsenter", f"--net={one.key}", "ip", "route", "get", "203.0.113.5"]
        found = await asyncio.to_thread(subprocess.run, route, capture_output=True, text=True)
        assert "dev lan0" in found.stdout and "via" not in found.stdout
        await two.leave(second)
        assert plugin.asked("Leave")[0] == plugin.asked("DeleteEndpoint")[0]
        assert plugin.asked("Leave")[0] == {"NetworkID": network.id, "EndpointID": second.id}
        plugin.failing = "Join"
        with pytest.raises(System, match="no more cables"):
            await add(controller, "three", "lan")
        assert len(plugin.asked("DeleteEndpoint")) == 2 and len(network.endpoints) == 1
        # It need not be there for the daemon to come up, and containers that have gone are left for it.
        plugin.failing = "CreateNetwork"
        await die(controller)
        again = host.controller(plugin=find)
        await again.start({})
        assert again.network("lan").id == network.id
        assert plugin.asked("Leave")[-1]["EndpointID"] == first.id
        await again.remove_network(again.network("lan"))
        assert len(plugin.asked("DeleteNetwork")) == 1
        await again.stop(False)
        await asyncio.to_thread(server.close)

    asyncio.run(run())
