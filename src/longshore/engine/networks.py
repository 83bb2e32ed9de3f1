"""Networks, as the API has them: create, list, inspect, connect, disconnect, remove, prune."""

from __future__ import annotations

from collections.abc import Mapping

from longshore.containers.container import Container
from longshore.containers.record import RecordEndpoint
from longshore.engine.endpoint_settings import verify_endpoint
from longshore.engine.engine import Engine
from longshore.engine.networking import (
    connect_to_network,
    disconnect_from_network,
    joined_container,
    network_mode,
    note_ports,
)
from longshore.errors import (
    Conflict,
    EngineError,
    Forbidden,
    InvalidParameter,
    NotFound,
    Unavailable,
)
from longshore.network.ipam import IPAMPool
from longshore.network.network import Network
from longshore.network.options import ENABLE, flag
from longshore.types import codec
from longshore.types.codec import ApiStruct
from longshore.types.filters import (
    Filters,
    boolean_filter,
    check_filters,
    exactly,
    has_labels,
    labels_match,
    matches,
    until_filter,
)
from longshore.types.network import (
    IPAM,
    ConfigReference,
    EndpointSettings,
    IPAMConfig,
    NetworkContainer,
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkInspect,
)
from longshore.types.timestamp import parse_rfc3339

PREDEFINED = ("bridge", "host", "none")
FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")


class NetworksPruneResponse(ApiStruct):
    """Answer to POST /networks/prune."""

    NetworksDeleted: list[str] | None = None


async def network_create(engine: Engine, request: NetworkCreateRequest) -> NetworkCreateResponse:
    """POST /networks/create. Raises Conflict, Forbidden, InvalidParameter, NotFound as Docker does."""
    _refuse_swarm(request)
    ipam = request.IPAM or IPAM()
    driver = request.Driver or "bridge"
    defaults = engine.config.default_network_opts.get(driver, {})
    network = await engine.networks.create_network(
        request.Name,
        driver,
        options=request.Options,
        ipam=[_pool(one) for one in ipam.Config or []],
        internal=request.Internal,
        attachable=request.Attachable,
        enable_ipv4=_enabled(request.EnableIPv4, defaults, 4),
        enable_ipv6=_enabled(request.EnableIPv6, defaults, 6),
        labels=request.Labels,
        ipam_options=ipam.Options,
        ipam_driver=ipam.Driver,
        scope=request.Scope,
        config_only=request.ConfigOnly,
        config_from=request.ConfigFrom.Network if request.ConfigFrom is not None else "",
    )
    _event(engine, network, "create")
    return NetworkCreateResponse(network.id)


def _enabled(asked: bool | None, defaults: Mapping[str, str], version: int) -> bool:
    return asked if asked is not None else flag(defaults, ENABLE[version], default=version == 4)


def _refuse_swarm(request: NetworkCreateRequest) -> None:
    """Raises Forbidden or Unavailable for what only a member of a swarm can make."""
    if request.Driver == "overlay":
        raise Unavailable(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
            "this node to swarm and try again."
        )
    if request.Ingress:
        raise Forbidden("Ingress network can only be global scope network")
    if request.Scope == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")


async def network_list(engine: Engine, filters: Filters) -> list[NetworkInspect]:
    """GET /networks, without the containers on them. Raises InvalidParameter for a bad filter."""
    check_filters(filters, FILTERS)
    for kind in filters.get("type", ()):
        if kind not in ("builtin", "custom"):
            raise InvalidParameter(f"invalid filter: 'type'='{kind}'")
    found = []
    for network in engine.networks.networks():
        if _matches(network, filters):
            found.append(describe_network(engine, network, containers=False))
    return found


async def network_inspect(engine: Engine, name: str, scope: str = "") -> NetworkInspect:
    """GET /networks/{id}, of a scope if one is named. Raises NotFound."""
    network = engine.networks.network(name)
    if scope not in ("", network.scope):
        raise NotFound(f"network {name} not found")
    return describe_network(engine, network)


async def network_remove(engine: Engine, name: str) -> None:
    """DELETE /networks/{id}. Raises NotFound, Forbidden for a predefined network or one in use."""
    network = engine.networks.network(name)
    await engine.networks.remove_network(network)
    _event(engine, network, "destroy")


async def networks_prune(engine: Engine, filters: Filters) -> NetworksPruneResponse:
    """POST /networks/prune: networks of users that no container has anything to do with."""
    check_filters(filters, ("label", "label!", "until"))
    until = until_filter(filters)
    report = NetworksPruneResponse()
    used = {
        endpoint.NetworkID or name
        for container in engine.containers
        for name, endpoint in (container.networks.Networks or {}).items()
    }
    for network in engine.networks.networks():
        if network.name in PREDEFINED or network.record.config_only or {network.id, network.name} & used:
            continue
        if not labels_match(filters, network.labels):
            continue
        if until is not None and parse_rfc3339(network.created) > until:
            continue
        try:
            await engine.networks.remove_network(network)
        except EngineError:
            continue  # It came into use meanwhile.
        _event(engine, network, "destroy")
        report.NetworksDeleted = [*(report.NetworksDeleted or []), network.name]
    engine.events.publish("network", "prune", "", {"reclaimed": "0"})
    return report


async def network_connect(
    engine: Engine, name: str, container_name: str, settings: EndpointSettings | None
) -> None:
    """POST /networks/{id}/connect: at once for a running container, at its next start for another.

    Raises NotFound, Forbidden where namespaces do not allow it, Conflict for a container being removed.
    """
    network = engine.networks.network(name)
    container = engine.containers.get(container_name)
    async with container.lock:
        if container.state.RemovalInProgress or container.state.Dead:
            raise Conflict(f"container {container.id} is marked for removal and cannot be connected")
        _refuse_foreign_mode(container, network)
        if network.record.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        networks = container.networks.Networks
        if networks is None:
            networks = container.networks.Networks = {}
        known = networks.get(network.name)
        if known is not None and known.EndpointID:
            raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
        endpoint = codec.convert(codec.to_plain(settings or EndpointSettings()), RecordEndpoint)
        verify_endpoint(network.name, endpoint, network)
        endpoint.DesiredMacAddress, endpoint.MacAddress = endpoint.MacAddress, ""
        endpoint.NetworkID = network.id
        networks[network.name] = endpoint
        if container.state.Running:
            sandbox = engine.networks.sandbox(container.id)
            if sandbox is None:
                raise Conflict(f"container {container.id} has no network namespace of its own")
            try:
                await connect_to_network(engine, container, sandbox, network.name, publish=False)
            except EngineError:
                del networks[network.name]
                raise
            note_ports(container, sandbox)
        await engine.containers.save(container)


async def network_disconnect(engine: Engine, name: str, container_name: str, force: bool = False) -> None:
    """POST /networks/{id}/disconnect. Raises NotFound, Forbidden if it is not connected."""
    network = engine.networks.network(name)
    try:
        container = engine.containers.get(container_name)
    except NotFound:
        if not force:
            raise
        return  # Its endpoint went with it.
    async with container.lock:
        networks = container.networks.Networks or {}
        key = next((k for k, e in networks.items() if network.id == e.NetworkID or k == network.name), None)
        if key is None:
            raise Forbidden(f"container {container.id} is not connected to network {network.name}")
        if network_mode(container) == "host" and network.name == "host":
            raise InvalidParameter(
                "cannot disconnect container from host network - container was created in host network mode"
            )
        if container.state.Running:
            await disconnect_from_network(engine, container, network)
        del networks[key]
        await engine.containers.save(container)


def describe_network(engine: Engine, network: Network, containers: bool = True) -> NetworkInspect:
    """A network as the API shows it."""
    return NetworkInspect(
        Name=network.name,
        Id=network.id,
        Created=network.created,
        Scope=network.scope,
        Driver=network.driver,
        EnableIPv4=network.enable_ipv4,
        EnableIPv6=network.enable_ipv6,
        IPAM=IPAM(
            Driver=network.record.ipam_driver,
            Options=network.record.ipam_options or None,
            Config=[
                IPAMConfig(
                    Subnet=pool.subnet,
                    IPRange=pool.ip_range,
                    Gateway=pool.gateway,
                    AuxiliaryAddresses=pool.aux_addresses or None,
                )
                for pool in network.pools
            ],
        ),
        Internal=network.internal,
        Attachable=network.attachable,
        ConfigOnly=network.record.config_only,
        ConfigFrom=ConfigReference(network.record.config_from),
        Containers=_containers(engine, network) if containers else {},
        Options=network.options,
        Labels=network.labels,
    )


def _containers(engine: Engine, network: Network) -> dict[str, NetworkContainer]:
    found = {}
    for endpoint in network.endpoints.values():
        container = engine.containers.find(endpoint.container_id)
        found[endpoint.container_id] = NetworkContainer(
            Name=endpoint.name if endpoint.gateway_service or container is None else container.name,
            EndpointID=endpoint.id,
            MacAddress=endpoint.mac_address,
            IPv4Address=_with_prefix(endpoint.ipv4_address, endpoint.ipv4_prefixlen),
            IPv6Address=_with_prefix(endpoint.ipv6_address, endpoint.ipv6_prefixlen),
        )
    return found


def _with_prefix(address: str, length: int) -> str:
    return f"{address}/{length}" if address else ""


def _pool(asked: IPAMConfig) -> IPAMPool:
    return IPAMPool(
        subnet=asked.Subnet,
        ip_range=asked.IPRange,
        gateway=asked.Gateway,
        aux_addresses=asked.AuxiliaryAddresses or {},
    )


SHARED_NAMESPACE = (
    "container sharing network namespace with another container or host "
    "cannot be connected to any other network"
)
PRIVATE_NAMESPACE = (
    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
)


def _refuse_foreign_mode(container: Container, network: Network) -> None:
    """Docker's rules on which namespaces may be on which networks. Raises InvalidParameter."""
    mode = network_mode(container)
    present = container.networks.Networks or {}
    if joined_container(container) or (mode == "host" and network.name != "host"):
        raise InvalidParameter(SHARED_NAMESPACE)
    if network.name == "host" and mode != "host":
        raise InvalidParameter(
            "cannot connect container to host network - container must be created in host network mode"
        )
    if (mode == "none" and network.name != "none" and "none" in present) or (
        network.name == "none" and present
    ):
        raise InvalidParameter(PRIVATE_NAMESPACE)


def _matches(network: Network, filters: Filters) -> bool:
    dangling = boolean_filter(filters, "dangling")
    if dangling is not None and dangling == bool(network.endpoints or network.name in PREDEFINED):
        return False
    kind = "builtin" if network.name in PREDEFINED else "custom"
    return (
        exactly(filters, "driver", network.driver)
        and exactly(filters, "scope", network.scope)
        and exactly(filters, "type", kind)
        and matches(filters, "id", network.id)
        and matches(filters, "name", network.name)
        and has_labels(network.labels, filters.get("label", ()))
    )


def _event(engine: Engine, network: Network, action: str) -> None:
    engine.events.publish("network", action, network.id, {"name": network.name, "type": network.driver})
