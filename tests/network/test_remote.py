"""Networks whose driver is a plug-in: what it is asked, and what becomes of the links it makes."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.plugin import VolumePlugin
from network.machines import MACHINE, Machine, Server, add, die, see

from longshore.errors import NotFound, System
from longshore.network.ipam import IPAMPool
from longshore.plugins import Plugin, plugin_of

Serve = Callable[..., Server]


class Cabling:
    """A plug-in that puts every endpoint on a bridge of its own."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.failing = ""

    def implements(self, kind: str) -> bool:
        return kind == "NetworkDriver"

    def call(self, method: str, arguments: Any = None) -> dict[str, Any]:
        method = method.removeprefix("NetworkDriver.")
        self.calls.append((method, arguments))
        if method == self.failing:
            raise System("no more cables")
        run = f"_{method.lower()}"
        return getattr(self, run)(arguments) if hasattr(self, run) else {}

    def asked(self, method: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.calls if name == method]

    def _createnetwork(self, arguments: dict[str, Any]) -> dict[str, Any]:
        gateway = arguments["IPv4Data"][0]["Gateway"]
        ip(f"link add cabling0 type bridge; ip addr add {gateway} dev cabling0; ip link set cabling0 up")
        return {}

    def _deletenetwork(self, arguments: dict[str, Any]) -> dict[str, Any]:
        ip("link del cabling0")
        return {}

    def _createendpoint(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return (
            {} if arguments["Interface"]["MacAddress"] else {"Interface": {"MacAddress": "02:00:00:00:0c:ab"}}
        )

    def _join(self, arguments: dict[str, Any]) -> dict[str, Any]:
        end = arguments["EndpointID"][:8]
        ip(
            f"link add c{end} type veth peer name p{end}; ip link set c{end} master cabling0 up; "
            f"ip link set p{end} up"
        )
        routes = [{"Destination": "203.0.113.0/24", "RouteType": 1}]
        return {
            "InterfaceName": {"SrcName": f"p{end}", "DstPrefix": "lan"},
            "Gateway": "10.90.0.1",
            "StaticRoutes": routes,
        }


class Served(VolumePlugin):
    """The same on a socket."""

    def __init__(self, plugin: Cabling, socket: Path) -> None:
        self._plugin = plugin
        super().__init__("cabling", socket.parent, socket)

    def answer(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        if method == "Plugin.Activate":
            return {"Implements": ["NetworkDriver"]}
        try:
            return self._plugin.call(method, given)
        except System as exc:
            return {"Err": exc.message}


def ip(command: str) -> str:
    return subprocess.run(["sh", "-ec", f"ip {command}"], capture_output=True, text=True, check=True).stdout


def test_a_plugin_as_network_driver(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        plugin = Cabling()
        server = Served(plugin, host.root / "plugins" / "cabling.sock")

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
        assert await see(two.key, first.ipv4_address, 80) == second.ipv4_address
        serve("/proc/thread-self/ns/net", 7000)
        assert await see(two.key, MACHINE, 7000) == second.ipv4_address  # by its gateway
        route = ["nsenter", f"--net={one.key}", "ip", "route", "get", "203.0.113.5"]
        found = await asyncio.to_thread(subprocess.run, route, capture_output=True, text=True)
        assert "dev lan0" in found.stdout and "via" not in found.stdout
        await two.leave(second)
        assert plugin.asked("Leave")[0] == plugin.asked("DeleteEndpoint")[0]
        assert plugin.asked("Leave")[0] == {"NetworkID": network.id, "EndpointID": second.id}
        plugin.failing = "Join"
        with pytest.raises(System, match="remote: .*no more cables"):
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
