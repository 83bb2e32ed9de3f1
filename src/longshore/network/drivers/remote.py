"""Network drivers that are plug-ins: Docker's protocol of remote drivers (libnetwork's docs/remote.md).

The plug-in makes links and says which; they are moved into the sandbox, named and addressed here.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Protocol

from longshore.errors import EngineError, System
from longshore.linux import rtnetlink
from longshore.linux.netlink import NetlinkSocket
from longshore.network.drivers import Machine
from longshore.network.drivers.inside import configure
from longshore.network.endpoint import Endpoint
from longshore.network.network import Network, NetworkRecord
from longshore.network.options import ENABLE, check_link_name

log = logging.getLogger(__name__)

KIND = "NetworkDriver"
_OPTIONS = "com.docker.network.generic"
_INTERNAL = "com.docker.network.internal"
_CONNECTED = 1
"""Type of a route that needs no next hop."""


class PluginClient(Protocol):
    """A plug-in that is called by method. Both methods block and raise EngineError."""

    def implements(self, kind: str) -> bool:
        """Whether it is of this kind."""

    def call(self, method: str, arguments: object = None) -> dict[str, Any]:
        """What it answers."""


class RemoteDriver:
    """One plug-in as a driver."""

    addressed = True
    publishes = False
    gives_mac = True

    def __init__(self, name: str, machine: Machine, lookup: Callable[[], PluginClient]) -> None:
        """`lookup` finds the plug-in, which need not be there before something is asked of it."""
        self.name = name
        self._machine = machine
        self._lookup = lookup
        self._plugin: PluginClient | None = None
        self._lock = threading.Lock()

    def prepare(self, record: NetworkRecord) -> None:
        """What its options mean the plug-in knows alone."""

    def needs_gateway(self, record: NetworkRecord, version: int) -> bool:
        """Always: whether it is used is the plug-in's decision."""
        return True

    def create(self, network: Network) -> None:
        """Tell the plug-in; of networks that it has been told of before a failure is logged only."""
        try:
            self._call("CreateNetwork", _network_request(network.record))
        except EngineError as exc:
            if not network.record.link_made:
                raise
            log.warning("network %s: %s", network.name, exc.message)
        network.record.link_made = True

    def delete(self, network: Network) -> None:
        """Tell the plug-in. Raises System with what it answers."""
        self._call("DeleteNetwork", {"NetworkID": network.id})

    def connect(self, network: Network, endpoint: Endpoint, namespace: Path, rtnl: NetlinkSocket) -> None:
        """Have the plug-in make the endpoint and its link, and move that into the namespace."""
        ids = {"NetworkID": network.id, "EndpointID": endpoint.id}
        wanted = {"Interface": _interface(endpoint), "Options": _options(endpoint)}
        try:
            answer = self._call("CreateEndpoint", {**ids, **wanted})
        except EngineError as exc:
            raise System(
                f"failed to create endpoint {endpoint.name} on network {network.name}: {exc.message}"
            ) from exc
        try:
            _take_interface(endpoint, answer.get("Interface") or {})
            joined = self._call("Join", {**ids, "SandboxKey": str(namespace), "Options": _options(endpoint)})
            self._take_link(endpoint, joined, namespace, rtnl)
        except BaseException:
            self.disconnect(network, endpoint)
            raise

    def publish(self, endpoint: Endpoint) -> None:
        """Nothing is published."""

    def unpublish(self, endpoint: Endpoint) -> None:
        """Nothing is published."""

    def restore(self, network: Network, endpoint: Endpoint) -> None:
        """The plug-in has its own memory."""

    def disconnect(self, network: Network, endpoint: Endpoint) -> None:
        """Tell the plug-in that the endpoint is left and gone; what it has to say against that is logged."""
        ids = {"NetworkID": network.id, "EndpointID": endpoint.id}
        for method in ("Leave", "DeleteEndpoint"):
            try:
                self._call(method, ids)
            except EngineError as exc:
                log.warning("endpoint %s on network %s: %s", endpoint.name, network.name, exc.message)

    def remove(self, network: Network, endpoint: Endpoint) -> None:
        """Nothing is left to do."""

    def _call(self, method: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        with self._lock:
            if self._plugin is None:
                self._plugin = self._lookup()
        return self._plugin.call(f"{KIND}.{method}", arguments)

    def _take_link(
        self, endpoint: Endpoint, joined: Mapping[str, Any], namespace: Path, rtnl: NetlinkSocket
    ) -> None:
        asked = joined.get("InterfaceName") or {}
        source, prefix = str(asked.get("SrcName") or ""), str(asked.get("DstPrefix") or "")
        endpoint.ipv4_gateway = str(joined.get("Gateway") or "")
        endpoint.ipv6_gateway = str(joined.get("GatewayIPv6") or "")
        if not source:
            endpoint.interface = ""
            return
        host = self._machine.rtnl
        link = rtnetlink.link_by_name(host, source)
        if link is None:
            raise System(f"plugin {self.name} made no link {source}")
        if prefix:
            check_link_name(f"{prefix}0")
            names = (f"{prefix}{number}" for number in itertools.count())
            endpoint.interface = next(name for name in names if rtnetlink.link_by_name(rtnl, name) is None)
        rtnetlink.set_link_up(host, link.index, up=False)
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            rtnetlink.move_link(host, link.index, endpoint.interface, fd, endpoint.mac_address)
        finally:
            os.close(fd)
        configure(endpoint, namespace, rtnl)
        inside = rtnetlink.link_by_name(rtnl, endpoint.interface)
        assert inside is not None
        endpoint.mac_address = inside.address
        for route in joined.get("StaticRoutes") or ():
            hop = "" if route.get("RouteType") == _CONNECTED else str(route.get("NextHop") or "")
            rtnetlink.add_route(rtnl, inside.index, ip_network(route["Destination"], strict=False), hop)


def _network_request(record: NetworkRecord) -> dict[str, object]:
    options: dict[str, object] = {
        _OPTIONS: record.options,
        ENABLE[4]: record.enable_ipv4,
        ENABLE[6]: record.enable_ipv6,
    }
    if record.internal:
        options[_INTERNAL] = True
    data: dict[int, list[dict[str, object]]] = {4: [], 6: []}
    for pool in record.pools:
        length = pool.subnet.partition("/")[2]
        described: dict[str, object] = {
            "AddressSpace": "LocalDefault",
            "Pool": pool.subnet,
            "Gateway": f"{pool.gateway}/{length}" if pool.gateway else "",
            "AuxAddresses": {name: f"{address}/{length}" for name, address in pool.aux_addresses.items()},
        }
        data[6 if ":" in pool.subnet else 4].append(described)
    return {"NetworkID": record.id, "Options": options, "IPv4Data": data[4], "IPv6Data": data[6]}


def _interface(endpoint: Endpoint) -> dict[str, str]:
    def with_length(address: str, length: int) -> str:
        return f"{address}/{length}" if address else ""

    return {
        "Address": with_length(endpoint.ipv4_address, endpoint.ipv4_prefixlen),
        "AddressIPv6": with_length(endpoint.ipv6_address, endpoint.ipv6_prefixlen),
        "MacAddress": endpoint.mac_address,
    }


def _options(endpoint: Endpoint) -> dict[str, object]:
    return {
        "com.docker.network.endpoint.exposedports": [],
        "com.docker.network.portmap": [],
        **endpoint.driver_opts,
    }


def _take_interface(endpoint: Endpoint, answer: Mapping[str, Any]) -> None:
    """What the plug-in chose; it may not change what was chosen for it."""
    if answer.get("MacAddress"):
        if endpoint.mac_address:
            raise System("remote: driver attempted to modify the MAC address of an endpoint")
        endpoint.mac_address = str(answer["MacAddress"])
    if answer.get("Address") and endpoint.ipv4_address:
        raise System("remote: driver attempted to modify the address of an endpoint")
