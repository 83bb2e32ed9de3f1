"""Sandboxes and endpoints as dockerd stores them, for one that comes while their containers run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from longshore.network.dockerd import NIL, SPACE, encode, key
from longshore.network.endpoint import Endpoint, PublishedPort
from longshore.network.network import Network
from longshore.network.sandbox_record import SandboxRecord

KINDS = ("sandbox", "endpoint", "bridge-endpoint")

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


def sandbox_values(records: Sequence[SandboxRecord], networks: Mapping[str, Network]) -> dict[bytes, bytes]:
    """Everything that is to be stored of sandboxes; `networks` by id."""
    values: dict[bytes, bytes] = {}
    users = Counter(dict.fromkeys(networks, 0))
    for record in records:
        if record.options.host:
            continue
        values[key("sandbox", record.id)] = encode(_sandbox(record))
        for endpoint in record.endpoints:
            network = networks.get(endpoint.network_id)
            if network is None:
                continue
            users[network.id] += 1
            values[key("endpoint", network.id, endpoint.id)] = encode(_endpoint(record, endpoint, network))
            if network.driver == "bridge":
                values[key("bridge-endpoint", endpoint.id)] = encode(_bridge_endpoint(endpoint, network))
    for id, count in users.items():
        values[key("endpoint_count", id)] = encode({"Count": count})
    return values


def _sandbox(record: SandboxRecord) -> dict[str, Any]:
    return {
        "ID": record.id,
        "Cid": record.container_id,
        "Eps": [{"Eid": endpoint.id, "Nid": endpoint.network_id} for endpoint in record.endpoints],
        "EpPriority": {endpoint.id: endpoint.gw_priority for endpoint in record.endpoints},
        "ExtDNS": [],
        "ExtDNS2": [],
    }


def _endpoint(record: SandboxRecord, endpoint: Endpoint, network: Network) -> dict[str, Any]:
    bindings, exposed = [_binding(port, "") for port in endpoint.ports], _exposed(endpoint.ports)
    interface: dict[str, Any] = {
        "dstPrefix": endpoint.interface.rstrip("0123456789") or "eth",
        "mac": endpoint.mac_address,
        "routes": None,
        "srcName": endpoint.host_interface,
        "v4PoolID": _pool(network, 4),
        "v6PoolID": _pool(network, 6),
    }
    joined: dict[str, Any] = {"StaticRoutes": None, "disableGatewayService": False}
    if endpoint.ipv4_address:
        interface["addr"] = f"{endpoint.ipv4_address}/{endpoint.ipv4_prefixlen}"
    if endpoint.ipv6_address:
        interface["addrv6"] = f"{endpoint.ipv6_address}/{endpoint.ipv6_prefixlen}"
    if endpoint.ipv4_gateway:
        joined["gw"] = endpoint.ipv4_gateway
    if endpoint.ipv6_gateway:
        joined["gw6"] = endpoint.ipv6_gateway
    return {
        "anonymous": not endpoint.dns_names,
        "disableResolution": not endpoint.dns_names,
        "dnsNames": endpoint.dns_names,
        "ep_iface": interface,
        "exposed_ports": exposed,
        "generic": {
            "com.docker.network.endpoint.exposedports": exposed,
            "com.docker.network.portmap": bindings,
        },
        "id": endpoint.id,
        "ingressPorts": [],
        "joinInfo": joined,
        "loadBalancer": False,
        "locator": "",
        "myAliases": endpoint.aliases,
        "name": endpoint.name,
        "sandbox": record.id,
        "svcAliases": [],
        "svcID": "",
        "svcName": "",
        "virtualIP": NIL,
    }


def _bridge_endpoint(endpoint: Endpoint, network: Network) -> dict[str, Any]:
    stored: dict[str, Any] = {
        "id": endpoint.id,
        "nid": network.id,
        "SrcName": endpoint.host_interface,
        "MacAddress": endpoint.mac_address,
        "Config": {"MacAddress": None},
        "ContainerConfig": None,
        "ExternalConnConfig": {
            "PortBindings": [_binding(port, "") for port in endpoint.ports],
            "ExposedPorts": _exposed(endpoint.ports),
        },
        "PortMapping": [_binding(port, port.container_ip) for port in endpoint.ports],
    }
    if endpoint.ipv4_address:
        stored["Addr"] = f"{endpoint.ipv4_address}/{endpoint.ipv4_prefixlen}"
    if endpoint.ipv6_address:
        stored["Addrv6"] = f"{endpoint.ipv6_address}/{endpoint.ipv6_prefixlen}"
    return stored


def _binding(port: PublishedPort, address: str) -> dict[str, Any]:
    return {
        "Proto": _PROTOCOLS[port.protocol],
        "IP": address,
        "Port": port.container_port,
        "HostIP": port.host_ip,
        "HostPort": port.host_port,
        "HostPortEnd": port.host_port,
    }


def _exposed(ports: Sequence[PublishedPort]) -> list[dict[str, int]]:
    found = dict.fromkeys((_PROTOCOLS[port.protocol], port.container_port) for port in ports)
    return [{"Proto": protocol, "Port": number} for protocol, number in found]


def _pool(network: Network, version: int) -> str:
    for pool in network.record.pools:
        if (":" in pool.subnet) == (version == 6):
            return f"{SPACE}/{pool.subnet}" + (f"/{pool.ip_range}" if pool.ip_range else "")
    return ""
