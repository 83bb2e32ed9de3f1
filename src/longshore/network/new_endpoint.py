"""How an endpoint comes to its addresses and names."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from longshore.errors import Forbidden, InvalidParameter, Unavailable
from longshore.network.drivers.bridge import mac_of, random_mac
from longshore.network.endpoint import Endpoint, EndpointOptions
from longshore.network.ipam import parse_address
from longshore.network.network import Network
from longshore.network.options import (
    INTERFACE_NAME,
    INTERFACE_PREFIX,
    check_link_name,
    endpoint_sysctls,
)
from longshore.network.threads import in_spare_thread

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController
    from longshore.network.sandbox import Sandbox


async def make_endpoint(
    controller: NetworkController,
    sandbox: Sandbox,
    network: Network,
    options: EndpointOptions,
    undo: AsyncExitStack,
    *,
    gateway_service: bool = False,
) -> Endpoint:
    """An endpoint beside the others of a sandbox, with its addresses and names taken.

    `undo` gives them back. Raises Forbidden, InvalidParameter, Unavailable with Docker's messages.
    """
    what = sandbox.container_id, sandbox.endpoints, network, options
    try:
        async with AsyncExitStack() as attempt:
            endpoint = await _make_endpoint(*what, attempt, gateway_service)
            undo.push_async_callback(attempt.pop_all().aclose)
            return endpoint
    except (Forbidden, Unavailable):
        # Addresses of those who have gone come free a moment later.
        if not await controller.settled(network.id):
            raise
    return await _make_endpoint(*what, undo, gateway_service)


async def _make_endpoint(
    container_id: str,
    others: Sequence[Endpoint],
    network: Network,
    options: EndpointOptions,
    undo: AsyncExitStack,
    gateway_service: bool,
) -> Endpoint:
    endpoint = Endpoint(
        id=secrets.token_hex(32),
        name=options.name or container_id[:12],
        network_id=network.id,
        network_name=network.name,
        container_id=container_id,
        aliases=list(options.aliases),
        dns_names=list(options.dns_names),
        driver_opts=dict(options.driver_opts),
        gw_priority=options.gw_priority,
        default_route=not network.internal,
        link_local_addresses=[str(parse_address(one)) for one in options.link_local_addresses],
        links=dict(options.links),
        gateway_service=gateway_service,
    )
    if network.removing:
        raise Forbidden(f"network {network.name} is being removed")
    if network.behaviour.addressed:
        undo.push_async_callback(network.release_addresses, endpoint)
        network.check_wanted(options.ipv4_address, options.ipv6_address)
        endpoint.mac_address = _mac_address(options.mac_address)
        with network.in_motion():
            await _take_addresses(network, endpoint, options)
        endpoint.interface = _free_interface(network, endpoint, others)
        if network.driver == "bridge":
            endpoint.host_interface = f"veth{secrets.token_hex(4)[:7]}"
        endpoint_sysctls(endpoint.driver_opts, endpoint.interface)
    network.add_endpoint(endpoint)
    undo.callback(network.drop_endpoint, endpoint.id)
    return endpoint


async def _take_addresses(network: Network, endpoint: Endpoint, options: EndpointOptions) -> None:
    ipam = network.ipam
    if not endpoint.mac_address and ipam is not None and await in_spare_thread(ipam.needs_mac):
        endpoint.mac_address = random_mac()
    await network.take_addresses(endpoint, options.ipv4_address, options.ipv6_address)
    if network.internal:
        endpoint.ipv4_gateway = endpoint.ipv6_gateway = ""
    if not endpoint.mac_address and not network.behaviour.gives_mac:
        endpoint.mac_address = mac_of(endpoint.ipv4_address)


def _free_interface(network: Network, endpoint: Endpoint, others: Sequence[Endpoint]) -> str:
    taken = {other.interface for other in others}
    if wanted := endpoint.driver_opts.get(INTERFACE_NAME):
        check_link_name(wanted)
        if wanted in taken or wanted == "lo":
            raise Forbidden(f"interface name {wanted} is taken in container {endpoint.container_id[:12]}")
        return wanted
    prefix = network.options.get(INTERFACE_PREFIX) or "eth"
    return next(name for i in range(len(taken) + 1) if (name := f"{prefix}{i}") not in taken)


def _mac_address(text: str) -> str:
    if not text:
        return ""
    try:
        octets = bytes.fromhex(text.replace(":", "").replace("-", ""))
    except ValueError:
        octets = b""
    if len(octets) != 6:
        raise InvalidParameter(f"invalid MAC address: {text}")
    return octets.hex(":")
