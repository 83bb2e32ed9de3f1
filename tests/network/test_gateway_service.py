"""docker_gwbridge, the way out of containers whose networks have none, and what plug-ins are told."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable

import pytest
from network.machines import MACHINE, NEIGHBOUR, Server, add, die, see
from network.office import Office

from longshore.errors import Forbidden, NotFound, System
from longshore.network.controller import Sandbox
from longshore.network.endpoint import EndpointOptions, PortBinding
from longshore.network.gateway import GATEWAY_NETWORK
from longshore.network.ipam import IPAMPool
from longshore.network.sandbox_record import SandboxOptions

Serve = Callable[..., Server]
LAN = [IPAMPool(subnet="10.90.0.0/24", gateway="10.90.0.1")]
WEB = [PortBinding("tcp", 80, "", 8080, 8080)]


def ways_out(box: Sandbox) -> str:
    command = ["nsenter", f"--net={box.key}", "ip", "route", "show", "default"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_containers_get_it_when_they_need_it(office: Office, serve: Serve) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        office.cabling.joined = {}
        await controller.create_network("lan", "office", ipam=LAN)
        serve(office.host.neighbour, 7000)
        made = await asyncio.gather(
            add(controller, "web", "lan", port_bindings=WEB),
            add(controller, "other", "lan", port_bindings=[PortBinding("tcp", 80)]),
        )
        (web, _), (other, _) = made
        gateways = controller.network(GATEWAY_NETWORK)
        assert {one.name for one in gateways.endpoints.values()} == {
            f"gateway_{box.id[:12]}" for box in (web, other)
        }
        serve(web.key, 80)

        async def reached() -> bool:
            out = await see(web.key, NEIGHBOUR, 7000) == MACHINE
            return out and await see(office.host.neighbour, MACHINE, 8080) == NEIGHBOUR

        assert await reached()
        inner = web.endpoints[-1]
        assert inner.gateway_service and await see(other.key, inner.ipv4_address, 80) is None
        with pytest.raises(Forbidden, match="has active endpoints"):
            await controller.remove_network(gateways)
        # One with a gateway takes its place, and gives it back; names do not matter.
        await controller.create_network("app")
        await controller.create_network("zoo")
        for name in ("app", "zoo"):
            joined = await web.join(controller.network(name), EndpointOptions(name="web"))
            assert len(gateways.endpoints) == 1 and await reached()
            assert joined.ipv4_gateway in ways_out(web)
            await web.leave(joined)
            assert len(gateways.endpoints) == 2 and await reached()
        # It is found again after a crash, and nothing is left of it after that.
        await die(controller)
        again = office.controller()
        await again.start({"web": web.key})
        controller = again
        assert len(again.network(GATEWAY_NETWORK).endpoints) == 1 and await reached()
        restored = again.sandbox("web")
        assert restored
        await restored.leave(restored.endpoints[0])
        assert restored.endpoints == [] and not again.network(GATEWAY_NETWORK).endpoints
        assert ways_out(web) == ""
        await again.remove_network(again.network(GATEWAY_NETWORK))
        await again.stop(False)

    asyncio.run(run())


def test_containers_do_not_get_it_when_they_have_a_way_out(office: Office) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        network = await controller.create_network("lan", "office", ipam=LAN)
        for number, joined in enumerate(
            (
                {"Gateway": "10.90.0.1"},
                {"DisableGatewayService": True},
                {"StaticRoutes": [{"Destination": "0.0.0.0/0", "RouteType": 0, "NextHop": "10.90.0.1"}]},
            )
        ):
            office.cabling.joined = joined
            box, _ = await add(controller, f"box{number}", "lan")
            assert len(box.endpoints) == 1
            assert ("via 10.90.0.1" in ways_out(box)) != ("DisableGatewayService" in joined)
            await controller.sandbox_destroy(f"box{number}")
        await controller.settled()
        await controller.remove_network(network)
        office.cabling.joined = {}
        await controller.create_network("inner", "office", ipam=LAN, internal=True)
        box, _ = await add(controller, "box", "inner")
        assert len(box.endpoints) == 1 and ways_out(box) == ""
        with pytest.raises(NotFound):
            controller.network(GATEWAY_NETWORK)
        await controller.stop(False)

    asyncio.run(run())


def test_a_failure_leaves_nothing(office: Office) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        network = await controller.create_network("lan", "office", ipam=LAN, ipam_driver="office")
        office.cabling.joined = {}
        await add(controller, "taken", port_bindings=WEB)
        with pytest.raises(System, match="port is already allocated"):
            await add(controller, "web", "lan", port_bindings=WEB)
        assert not network.endpoints and not controller.network(GATEWAY_NETWORK).endpoints
        assert office.cabling.calls[-1][0] == "DeleteEndpoint"
        sandbox = controller.sandbox("web")
        assert sandbox and sandbox.endpoints == [] and not sandbox.options.port_bindings
        office.cabling.joined = {"Gateway": "10.90.0.1"}
        office.cabling.failing = "ProgramExternalConnectivity"
        with pytest.raises(System, match=r"external connectivity on endpoint .*: remote: no more"):
            await add(controller, "web", "lan", port_bindings=WEB)
        assert [name for name, _ in office.cabling.calls[-2:]] == ["Leave", "DeleteEndpoint"]
        assert not network.endpoints
        await controller.settled()
        assert {len(taken) for taken in office.addressing.taken.values()} == {1}  # the gateway
        await controller.stop(False)

    asyncio.run(run())


def test_plugins_are_told_of_ports(office: Office) -> None:
    async def run() -> None:
        plugin, controller = office.cabling, office.controller()
        await controller.start({})
        network = await controller.create_network("lan", "office", ipam=LAN)
        box = await controller.create_sandbox("box", SandboxOptions(exposed=[("tcp", 80), ("udp", 77)]))
        bindings = [*WEB, PortBinding("tcp", 81)]
        endpoint = await box.join(network, EndpointOptions(name="box", port_bindings=bindings))
        assert endpoint.publishes and not endpoint.ports
        told = {
            "com.docker.network.endpoint.exposedports": [
                {"Proto": 6, "Port": 80},
                {"Proto": 6, "Port": 81},
                {"Proto": 17, "Port": 77},
            ],
            "com.docker.network.portmap": [
                {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080},
                {"Proto": 6, "IP": "", "Port": 81, "HostIP": "", "HostPort": 0, "HostPortEnd": 0},
            ],
        }
        ids = {"NetworkID": network.id, "EndpointID": endpoint.id}
        assert plugin.asked("CreateEndpoint")[0]["Options"] == told
        assert plugin.asked("ProgramExternalConnectivity") == [{**ids, "Options": told}]
        # Another way out: the plug-in takes its ports back, and publishes them again in the end.
        await controller.create_network("app")
        other = await box.join(controller.network("app"), EndpointOptions(name="box", gw_priority=1))
        assert plugin.asked("RevokeExternalConnectivity") == [ids] and other.ports
        await box.leave(other)
        assert len(plugin.asked("ProgramExternalConnectivity")) == 2
        await controller.sandbox_destroy("box")
        assert [name for name, _ in plugin.calls[-3:]] == [
            "RevokeExternalConnectivity",
            "Leave",
            "DeleteEndpoint",
        ]
        # Old ones know of no such thing.
        plugin.lacking = {"ProgramExternalConnectivity", "RevokeExternalConnectivity"}
        await add(controller, "old", "lan")
        await controller.sandbox_destroy("old")
        await controller.stop(False)

    asyncio.run(run())


def test_what_plugins_are_capable_of(office: Office) -> None:
    async def run() -> None:
        plugin, controller = office.cabling, office.controller()
        await controller.start({})
        plugin.capabilities = {"Scope": "wide"}
        with pytest.raises(NotFound, match="could not find plugin office"):
            await controller.create_network("lan", "office")
        plugin.capabilities = {"Scope": "global", "GwAllocChecker": True}
        plugin.skipping = {"SkipIPv4": True}
        with pytest.raises(Forbidden, match="cannot downgrade network scope for office networks"):
            await controller.create_network("lan", "office", scope="local")
        network = await controller.create_network("lan", "office", options={"a": "b"}, enable_ipv6=True)
        assert plugin.asked("GwAllocCheck")[0]["Options"]["com.docker.network.generic"] == {"a": "b"}
        assert network.scope == "global" and network.pools[0].subnet == "10.0.0.0/24"
        assert network.pools[0].gateway == "" and network.pools[1].gateway
        assert plugin.asked("CreateNetwork")[0]["IPv4Data"] == [
            {"AddressSpace": "GlobalDefault", "Pool": "10.0.0.0/24"}
        ]
        await die(controller)
        again = office.controller()
        await again.start({})
        assert again.network("lan").scope == "global" and not again.network("lan").pools[0].gateway
        plugin.calls.clear()
        plugin.failing = "CreateNetwork"
        with pytest.raises(System, match="remote: no more cables"):
            await again.create_network("more", "office")
        assert len(plugin.asked("GetCapabilities")) == len(plugin.asked("GwAllocCheck")) == 1
        plugin.failing = "DeleteNetwork"  # Which nobody can help.
        await again.remove_network(again.network("lan"))
        await again.stop(False)

    asyncio.run(run())
