"""Plug-ins that take their time: who has to wait for them, and who does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from network.machines import add, die
from network.office import Office

from longshore.errors import Conflict, Forbidden, NotFound
from longshore.network.endpoint import EndpointOptions, PortBinding
from longshore.network.ipam import IPAMPool
from longshore.network.sandbox_record import SandboxOptions

POOL = [IPAMPool(subnet="10.90.0.0/24")]


@asynccontextmanager
async def hanging(office: Office, method: str) -> AsyncIterator[threading.Event]:
    """Within, the plug-in does not answer this, until the event is set."""
    gate = office.server.held[method] = threading.Event()
    try:
        yield gate
    finally:
        gate.set()
        del office.server.held[method]


async def asked(office: Office, method: str, times: int = 1) -> None:
    for _ in range(2000):
        if [name for name, _ in office.server.asked].count(method) >= times:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{method} was not asked")


def test_networks_of_others_come_and_go(office: Office) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        async with hanging(office, "NetworkDriver.CreateNetwork") as gate:
            slow = []
            for number in range(40):  # More than the event loop has threads of its own.
                pool = [IPAMPool(subnet=f"10.90.{number}.0/24")]
                slow.append(
                    asyncio.create_task(controller.create_network(f"slow{number}", "office", ipam=pool))
                )
                await asked(office, "NetworkDriver.CreateNetwork", number + 1)
            app = await controller.create_network("app")
            await add(controller, "box", "app")
            await controller.sandbox_destroy("box")
            await controller.remove_network(app)
            with pytest.raises(Forbidden, match="Pool overlaps"):
                await controller.create_network("app", ipam=POOL)
            # What nobody waits for any more is there until the plug-in has answered, and gone then.
            for task in slow:
                task.cancel()
            again = asyncio.create_task(controller.create_network("slow0", ipam=POOL))
            await asyncio.sleep(0.1)
            assert not again.done() and not any(task.done() for task in slow)
            for task in slow:
                task.cancel()
            gate.set()
            ends = await asyncio.gather(*slow, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends)
            assert (await again).driver == "bridge"
        assert len(office.cabling.asked("DeleteNetwork")) == 40
        await controller.remove_network(controller.network("slow0"))
        assert {network.name for network in controller.networks()} == {"none", "host", "bridge"}
        await controller.create_network("free", ipam=[IPAMPool(subnet="10.90.0.0/16")])
        await controller.stop(False)
        after = office.controller()
        await after.start({})
        assert {network.name for network in after.networks()} == {"none", "host", "bridge", "free"}
        await after.stop(False)

    asyncio.run(run())


def test_what_is_on_the_way_is_taken(office: Office) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        named = {"com.docker.network.bridge.name": "own0"}
        async with hanging(office, "IpamDriver.RequestPool") as gate:
            first = asyncio.create_task(
                controller.create_network("first", options=named, ipam_driver="office")
            )
            await asked(office, "IpamDriver.RequestPool")
            with pytest.raises(Forbidden, match="bridge name already used by another network: own0"):
                await controller.create_network("second", options=named)
            same = asyncio.create_task(controller.create_network("first"))
            gate.set()
            assert (await first).record.link == "own0"
            with pytest.raises(Conflict, match="network with name first already exists"):
                await same
        await controller.stop(False)

    asyncio.run(run())


def test_removals(office: Office) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        lan = await controller.create_network("lan", "office", ipam=POOL)
        app = await controller.create_network("app", ipam_driver="office")
        await add(controller, "box", "app")
        async with hanging(office, "NetworkDriver.DeleteNetwork") as gate:
            removal = asyncio.create_task(controller.remove_network(lan))
            await asked(office, "NetworkDriver.DeleteNetwork")
            with pytest.raises(Forbidden, match="is being removed"):
                await add(controller, "late", "lan")
            twice = asyncio.create_task(controller.remove_network(lan))
            removal.cancel()
            await controller.remove_network(await controller.create_network("other"))
            assert not removal.done()
            gate.set()
            with pytest.raises(asyncio.CancelledError):
                await removal
            with pytest.raises(NotFound, match="network lan not found"):
                await twice
        assert lan not in controller.networks()
        await controller.create_network("lan", ipam=POOL)  # Nothing of it is left.
        # Addresses that take their time to be given back keep their own network, and no other.
        async with hanging(office, "IpamDriver.ReleaseAddress") as gate:
            await controller.sandbox_destroy("box")
            removal = asyncio.create_task(controller.remove_network(app))
            await asked(office, "IpamDriver.ReleaseAddress")
            await controller.remove_network(controller.network("lan"))
            assert not removal.done() and not office.addressing.asked("ReleasePool")[1:]
            gate.set()
            await removal
        assert office.is_empty()
        await controller.stop(False)

    asyncio.run(run())


def test_an_endpoint_that_leaves_keeps_its_network(office: Office) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        lan = await controller.create_network("lan", "office", ipam=POOL)
        box = await controller.create_sandbox("box", SandboxOptions(hostname="box"))
        endpoint = await box.join(lan, EndpointOptions(name="box"))
        async with hanging(office, "NetworkDriver.Leave") as gate:
            leaving = asyncio.create_task(box.leave(endpoint))
            await asked(office, "NetworkDriver.Leave")
            with pytest.raises(Forbidden, match="has active endpoints"):
                await controller.remove_network(lan)
            gate.set()
            await leaving
        await controller.remove_network(lan)
        order = [method for method, _ in office.cabling.calls]
        assert order.index("Leave") < order.index("DeleteEndpoint") < order.index("DeleteNetwork")
        await controller.stop(False)

    asyncio.run(run())


@pytest.mark.parametrize("whole", [True, False])
def test_who_gives_up_waiting_leaves_nothing(office: Office, whole: bool) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        lan = await controller.create_network("lan", "office", ipam=POOL)
        box = await controller.create_sandbox("box", SandboxOptions(hostname="box"))
        web = [PortBinding("tcp", 80, "", 8080, 8080)]
        await box.join(controller.network("bridge"), EndpointOptions(name="box", port_bindings=web))
        endpoint = await box.join(lan, EndpointOptions(name="box"))
        async with hanging(office, "NetworkDriver.Leave") as gate:
            leaving = asyncio.create_task(controller.sandbox_destroy("box") if whole else box.leave(endpoint))
            await asked(office, "NetworkDriver.Leave")
            leaving.cancel()
            await asyncio.sleep(0)
            leaving.cancel()
            gate.set()
            with pytest.raises(asyncio.CancelledError):
                await leaving
        assert len(office.cabling.asked("DeleteEndpoint")) == 1
        if whole:
            assert controller.sandbox("box") is None
        else:
            assert [one.network_name for one in box.endpoints] == ["bridge"]
            await controller.sandbox_destroy("box")
        await controller.settled()
        await add(controller, "again", port_bindings=web)
        await controller.remove_network(lan)
        await controller.stop(False)

    asyncio.run(run())


def test_a_start_waits_for_all_at_once(office: Office) -> None:
    async def run() -> None:
        controller = office.controller()
        await controller.start({})
        names = ["app", "lan1", "lan2", "lan3", "other"]
        for number, name in enumerate(names):
            driver, pool = "office" if "lan" in name else "bridge", f"10.90.{number}.0/24"
            await controller.create_network(name, driver, ipam=[IPAMPool(subnet=pool)])
        await die(controller)
        after = office.controller()
        async with hanging(office, "NetworkDriver.CreateNetwork"):
            office.server.asked.clear()
            starting = asyncio.create_task(after.start({}))
            await asked(office, "NetworkDriver.CreateNetwork", 3)
        await starting
        assert [network.name for network in after.networks()] == ["none", "host", "bridge", *names]
        await after.stop(False)

    asyncio.run(run())
