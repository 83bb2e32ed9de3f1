"""A sandbox's ports are where its way out is, and move when that changes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from longshore.errors import EngineError
from longshore.network.endpoint import Endpoint
from longshore.network.network import Network
from longshore.network.publishing import allocate_ports, as_bound, published_versions
from longshore.network.threads import in_thread

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController
    from longshore.network.sandbox import Sandbox


def publish_first(
    controller: NetworkController, sandbox: Sandbox, network: Network, endpoint: Endpoint
) -> None:
    """Take the ports of a new endpoint that becomes the way out while none was. Raises System."""
    bindings, networks = sandbox.options.port_bindings, controller.networks_by_id
    if not network.behaviour.publishes or not bindings or any(one.publishes for one in sandbox.endpoints):
        return
    endpoint.publishes = published_versions(sandbox.endpoints, networks)[endpoint.id]
    endpoint.ports = allocate_ports(controller, network, endpoint, bindings)


async def move_ports(controller: NetworkController, sandbox: Sandbox) -> None:
    """Publish where the way out is now. Raises System if a host port cannot be had any more."""
    networks = controller.networks_by_id
    plugins = any(networks[one.network_id].behaviour.remote for one in sandbox.endpoints)
    if not sandbox.options.port_bindings and not plugins:
        return  # Plug-ins must know who is the way out in any case.
    wanted = published_versions(sandbox.endpoints, networks)
    moving = [one for one in sandbox.endpoints if wanted[one.id] != one.publishes]
    if not moving:
        return
    for endpoint in moving:
        sandbox.options.port_bindings = as_bound(sandbox.options.port_bindings, endpoint.ports)
        if endpoint.publishes:
            network = networks[endpoint.network_id]
            await network.in_thread(network.behaviour.unpublish, endpoint)
        controller.ports.release(endpoint.ports)
        endpoint.ports, endpoint.publishes = [], []
    for endpoint in moving:
        if wanted[endpoint.id]:
            await _publish(controller, sandbox, endpoint, wanted[endpoint.id])
    await in_thread(sandbox.save)


async def _publish(
    controller: NetworkController, sandbox: Sandbox, endpoint: Endpoint, versions: list[int]
) -> None:
    """Publish at an endpoint without ports. After a failure it has none, and the next move tries again."""
    network = controller.networks_by_id[endpoint.network_id]
    endpoint.publishes = versions
    try:
        endpoint.ports = allocate_ports(controller, network, endpoint, sandbox.options.port_bindings)
        await network.in_thread(network.behaviour.publish, endpoint)
    except BaseException:
        with suppress(OSError, EngineError):
            await network.in_thread(network.behaviour.unpublish, endpoint)
        controller.ports.release(endpoint.ports)
        endpoint.ports, endpoint.publishes = [], []
        raise
