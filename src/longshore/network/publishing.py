"""Which of a sandbox's endpoints publishes its ports: as in Docker, the one that is its way out.

Endpoints may lead out by IPv4, by IPv6 or by both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from longshore.errors import EngineError, System
from longshore.network.endpoint import Endpoint, PortBinding, PublishedPort
from longshore.network.network import Network
from longshore.network.options import HOST_BINDING, trusted_interfaces
from longshore.network.ports import Wanted
from longshore.network.sandbox_record import SandboxOptions

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


def gateway_endpoint(endpoints: Iterable[Endpoint], version: int) -> Endpoint | None:
    """The endpoint that leads out: the one of highest priority, then the first by its network's name."""
    order = sorted(
        endpoints,
        key=lambda endpoint: (endpoint.gateway_service, -endpoint.gw_priority, endpoint.network_name),
    )
    for endpoint in order:
        if not endpoint.default_route:
            continue
        gateway = endpoint.ipv4_gateway if version == 4 else endpoint.ipv6_gateway
        address = endpoint.ipv4_address if version == 4 else endpoint.ipv6_address
        if gateway or (endpoint.device_route and address):
            return endpoint
    return None


def published_versions(
    endpoints: Sequence[Endpoint], networks: Mapping[str, Network]
) -> dict[str, list[int]]:
    """IP versions of host addresses that endpoints publish for, by endpoint id.

    IPv6 clients of a sandbox without a way out by IPv6 come to the endpoint that has IPv4.
    """
    found: dict[str, list[int]] = {endpoint.id: [] for endpoint in endpoints}
    four, six = gateway_endpoint(endpoints, 4), gateway_endpoint(endpoints, 6)
    for version, endpoint in ((4, four), (6, six or four)):
        if endpoint is not None:
            network = networks.get(endpoint.network_id)
            publishes = network is not None and (network.behaviour.publishes or network.behaviour.remote)
            if network is not None and publishes and not network.internal:
                found[endpoint.id].append(version)
    return found


def allocate_ports(
    controller: NetworkController, network: Network, endpoint: Endpoint, bindings: Sequence[PortBinding]
) -> list[PublishedPort]:
    """Take host ports for the bindings, on behalf of the endpoint and for the versions it publishes for.

    Raises System with Docker's message; nothing is taken then. Plug-ins publish ports by themselves.
    """
    if not network.behaviour.publishes:
        return []
    default = network.options.get(HOST_BINDING) or "0.0.0.0"
    direct = controller.config.allow_direct_routing or bool(trusted_interfaces(network.options))
    wanted: list[Wanted] = []
    routed: list[PublishedPort] = []
    for binding in bindings:
        places = []
        for version in endpoint.publishes:
            target = endpoint.ipv4_address if version == 4 else endpoint.ipv6_address
            relayed = version == 6 and not target
            if relayed and (binding.protocol == "sctp" or network.gateway_mode(4) == "routed"):
                continue
            host_ip = _host_address(controller, endpoint, binding.host_ip, default, version)
            if not host_ip:
                continue
            if target and network.gateway_mode(version) == "routed":
                routed.append(
                    PublishedPort(binding.protocol, target, binding.container_port, host_ip, 0, True)
                )
            else:
                places.append((host_ip, target or endpoint.ipv4_address))
        if places:
            start, end = binding.host_port_start, binding.host_port_end
            wanted.append(Wanted(binding.protocol, binding.container_port, start, end, tuple(places), direct))
    try:
        return routed + controller.ports.allocate(wanted)
    except EngineError as exc:
        raise System(
            "driver failed programming external connectivity on endpoint "
            f"{endpoint.name} ({endpoint.id}): {exc.message}"
        ) from exc


def port_options(options: SandboxOptions) -> dict[str, Any]:
    """What plug-ins are told of a sandbox's ports, by the names of libnetwork's options."""
    published = [
        {
            "Proto": _PROTOCOLS[one.protocol],
            "IP": "",
            "Port": one.container_port,
            "HostIP": one.host_ip,
            "HostPort": one.host_port_start,
            "HostPortEnd": one.host_port_end or one.host_port_start,
        }
        for one in options.port_bindings
    ]
    ports = {*options.exposed, *((one.protocol, one.container_port) for one in options.port_bindings)}
    exposed = [{"Proto": _PROTOCOLS[protocol], "Port": port} for protocol, port in sorted(ports)]
    return {
        "com.docker.network.endpoint.exposedports": exposed,
        "com.docker.network.portmap": published,
    }


def as_bound(bindings: Sequence[PortBinding], ports: Sequence[PublishedPort]) -> list[PortBinding]:
    """The bindings, those whose host port was chosen with what was chosen."""
    fixed = {(one.protocol, one.host_port_start) for one in bindings if _is_fixed(one)}
    found = []
    for binding in bindings:
        if not _is_fixed(binding):
            start, end = binding.host_port_start or 1, binding.host_port_end or 65535
            for port in ports:
                same = (port.protocol, port.container_port) == (binding.protocol, binding.container_port)
                if same and start <= port.host_port <= end and (port.protocol, port.host_port) not in fixed:
                    fixed.add((port.protocol, port.host_port))
                    binding = replace(  # noqa: PLW2901 - what it has become
                        binding, host_port_start=port.host_port, host_port_end=port.host_port
                    )
                    break
        found.append(binding)
    return found


def _is_fixed(binding: PortBinding) -> bool:
    return bool(binding.host_port_start) and binding.host_port_end in (0, binding.host_port_start)


def _host_address(
    controller: NetworkController, endpoint: Endpoint, asked: str, default: str, version: int
) -> str:
    """The host address of that IP version to publish at; empty for none."""
    six = version == 6
    # Without an address of the version, IPv6 clients are relayed to IPv4. The reverse Docker has not either.
    if not (endpoint.ipv6_address if six else endpoint.ipv4_address) and not (
        six and endpoint.ipv4_address and controller.ports.relays_ipv6
    ):
        return ""
    if asked:
        return asked if (":" in asked) == six else ""
    if (":" in default) == six:
        return default
    return "::" if six and default == "0.0.0.0" and controller.ports.relays_ipv6 else ""
