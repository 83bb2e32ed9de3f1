"""The gateway service: `docker_gwbridge`, the way out of containers whose plug-ins' networks have none.

As in libnetwork, a sandbox gets an endpoint on that bridge when one of its networks lacks a gateway and no
other has one, and loses it as soon as that changes. It is none of the container's own networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from longshore.errors import Conflict, NotFound
from longshore.network.endpoint import Endpoint
from longshore.network.network import Network
from longshore.network.options import BRIDGE_NAME, ICC, MASQUERADE

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController

GATEWAY_NETWORK = "docker_gwbridge"


def needs_gateway_service(endpoints: Sequence[Endpoint]) -> bool:
    """Whether a sandbox with these endpoints has no way out although it should have one."""
    own = [endpoint for endpoint in endpoints if not endpoint.gateway_service]
    return any(endpoint.lacks_gateway for endpoint in own) and not any(
        endpoint.leads_out or (endpoint.default_route and (endpoint.ipv4_gateway or endpoint.ipv6_gateway))
        for endpoint in own
    )


async def gateway_network(controller: NetworkController) -> Network:
    """The network of that name, which users may have made as they like. Raises as `create_network`."""
    for _ in range(2):
        with suppress(NotFound):
            network = controller.network(GATEWAY_NETWORK)
            if not network.removing:  # Else another is made once it has gone.
                return network
        options = {ICC: "false", MASQUERADE: "true"}
        if not controller.config.instance:  # Others on the machine have bridges of their own.
            options[BRIDGE_NAME] = GATEWAY_NETWORK
        try:
            return await controller.create_network(GATEWAY_NETWORK, options=options)
        except Conflict:
            continue  # Somebody else was faster.
    return controller.network(GATEWAY_NETWORK)
