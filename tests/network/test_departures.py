"""What has gone, and what its container or others may have of it a moment later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from network.machines import MACHINE, NEIGHBOUR, Machine, Server, add, die, see

from longshore.errors import Forbidden
from longshore.network.endpoint import EndpointOptions, PortBinding
from longshore.network.ipam import IPAMPool
from longshore.network.sandbox_record import SandboxOptions

Serve = Callable[..., Server]


def test_a_restart_keeps_its_address(host: Machine, serve: Serve) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        await controller.create_network("app", ipam=[IPAMPool(subnet="10.79.0.0/24")])
        for _ in range(10):
            box, endpoint = await add(controller, "box", "app", port_bindings=[PortBinding("tcp", 80)])
            assert endpoint.ipv4_address == "10.79.0.2"
            server = serve(box.key, 80)
            assert await see(host.neighbour, MACHINE, endpoint.ports[0].host_port) == NEIGHBOUR
            server.close()
            await controller.sandbox_destroy("box")
        # A crash between two lives: the second is taken up, of the first nothing is left.
        box, endpoint = await add(controller, "box", "app")
        first = box.record
        await controller.sandbox_destroy("box")
        box, endpoint = await add(controller, "box", "app")
        await asyncio.to_thread(controller.store.save, "sandbox", first.id, first, durable=False)
        await die(controller)
        after = host.controller()
        await after.start({"box": box.key})
        restored = after.sandbox("box")
        assert restored and restored.id == box.id
        serve(box.key, 80)
        mate, _ = await add(after, "mate", "app")
        assert await see(mate.key, endpoint.ipv4_address, 80)
        records = await asyncio.to_thread(
            lambda: {path.name for path in (host.root / "data/network/longshore").glob("sandbox-*")}
        )
        assert records == {f"sandbox-{one.id}.json" for one in (box, mate)}
        # Records that are named by their container, as older versions did.
        await asyncio.to_thread(after.store.save, "sandbox", "box", restored.record, durable=False)
        await die(after)
        last = host.controller()
        await last.start({"box": box.key, "mate": mate.key})
        assert await see(mate.key, endpoint.ipv4_address, 80)
        records = await asyncio.to_thread(
            lambda: {path.name for path in (host.root / "data/network/longshore").glob("sandbox-*")}
        )
        assert records == {f"sandbox-{one.id}.json" for one in (box, mate)}
        await last.stop(False)

    asyncio.run(run())


def test_what_was_left_a_moment_ago_can_be_had(host: Machine) -> None:
    async def run() -> None:
        controller = host.controller()
        await controller.start({})
        network = await controller.create_network("app", ipam=[IPAMPool(subnet="10.79.0.0/24")])
        box, endpoint = await add(controller, "box", "app", ipv4_address="10.79.0.77")
        await box.leave(endpoint)
        again = await box.join(network, EndpointOptions(name="box", ipv4_address="10.79.0.77"))
        assert again.ipv4_address == "10.79.0.77"
        await controller.sandbox_destroy("box")
        await add(controller, "other", "app", ipv4_address="10.79.0.77")
        # The one address that there is.
        await controller.create_network("tiny", ipam=[IPAMPool(subnet="10.80.0.0/30")])
        for number in range(3):
            await add(controller, f"tiny{number}", "tiny")
            await controller.sandbox_destroy(f"tiny{number}")
        # Whoever is refused one address keeps no other.
        both = [IPAMPool(subnet="10.81.0.0/24"), IPAMPool(subnet="fd00:81::/64")]
        await controller.create_network("both", ipam=both, enable_ipv6=True)
        wanted = {"ipv4_address": "10.81.0.7", "ipv6_address": "fd00:81::7"}
        await add(controller, "going", "both", ipv6_address="fd00:81::7")
        lucky = await controller.create_sandbox("lucky", SandboxOptions())
        await controller.sandbox_destroy("going")
        taken = await lucky.join(controller.network("both"), EndpointOptions(name="lucky", **wanted))
        for _ in range(2):
            await add(controller, "someone")
            await controller.sandbox_destroy("someone")
            with pytest.raises(Forbidden, match="Address already in use"):
                await add(controller, "late", "both", ipv4_address="10.81.0.8", ipv6_address="fd00:81::7")
        await add(controller, "next", "both", ipv4_address="10.81.0.8")
        await lucky.leave(taken)
        await add(controller, "heir", "both", **wanted)
        await controller.stop(False)

    asyncio.run(run())
