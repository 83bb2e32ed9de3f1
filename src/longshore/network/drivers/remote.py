"""Network drivers that are plug-ins: Docker's protocol of remote drivers (libnetwork's docs/remote.md).

The plug-in makes links and says which; they are moved into the sandbox, named and addressed here.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Protocol

from longshore.errors import EngineError, System
from longshore.linux import rtnetlink
from longshore.linux.netlink import NetlinkSocket
from longshore.network.drivers import Machine
from longshore.network.drivers.inside import configure
from longshore.network.endpoint import Endpoint
from longshore.network.ipam_driver import BUILT_IN
from longshore.network.network import Network
from longshore.network.options import ENABLE, check_link_name
from longshore.network.record import NetworkRecord
from longshore.plugins import MethodMissing

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

    def call(
        self, method: str, arguments: object = None, *, complaint: str = "Err", prefix: str = ""
    ) -> dict[str, Any]:
        """What it answers; what a field `complaint` of that says is raised, with the prefix before it."""


class RemoteDriver:
    """One plug-in as a driver."""

    addressed = True
    publishes = False
    gives_mac = True
    remote = True
    scope = "local"

    def __init__(self, name: str, machine: Machine, lookup: Callable[[], PluginClient]) -> None:
        """`lookup` finds the plug-in, which need not be there before something is asked of it."""
        self.name = name
        self._machine = machine
        self._lookup = lookup
        self._plugin: PluginClient | None = None
        self._lock = threading.Lock()
        self._checks_gateways = self._learnt = False

    def learn(self) -> None:
        """Ask once what it can do. Raises EngineError if it does not say, or says nonsense."""
        if self._learnt:
            return
        answer = self._call("GetCapabilities", {})
        for name in ("Scope", "ConnectivityScope"):
            scope = answer.get(name) or ("" if name == "Scope" else self.scope)
            if scope not in ("local", "global"):
                raise System(f"invalid capability: expecting 'local' or 'global', got {scope}")
            if name == "Scope":
                self.scope = scope
        self._checks_gateways = answer.get("GwAllocChecker") is True
        self._learnt = True

    def prepare(self, record: NetworkRecord) -> None:
        """What its options mean the plug-in knows alone."""

    def consult(self, record: NetworkRecord) -> None:
        """Ask whether gateways are wanted, if the plug-in has an opinion."""
        if self._checks_gateways:
            answer = self._call("GwAllocCheck", {"Options": _network_options(record)})
            skipped = {4: answer.get("SkipIPv4"), 6: answer.get("SkipIPv6")}
            record.no_gateway = [version for version, skip in skipped.items() if skip is True]

    def needs_gateway(self, record: NetworkRecord, version: int) -> bool:
        """Unless the plug-in said otherwise; whether it is used is its decision too."""
        return version not in record.no_gateway

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
        """Tell the plug-in; what it has to say against that is logged."""
        try:
            self._call("DeleteNetwork", {"NetworkID": network.id})
        except EngineError as exc:
            log.warning("network %s: %s", network.name, exc.message)

    def connect(self, network: Network, endpoint: Endpoint, namespace: Path, rtnl: NetlinkSocket) -> None:
        """Have the plug-in make the endpoint and its link, and move that into the namespace."""
        ids = {"NetworkID": network.id, "EndpointID": endpoint.id}
        wanted = {"Interface": _interface(endpoint), "Options": {**endpoint.driver_opts, **endpoint.told}}
        try:
            answer = self._call("CreateEndpoint", {**ids, **wanted})
        except EngineError as exc:
            raise System(
                f"failed to create endpoint {endpoint.name} on network {network.name}: {exc.message}"
            ) from exc
        try:
            _take_interface(endpoint, answer.get("Interface") or {})
            joined = self._call("Join", {**ids, "SandboxKey": str(namespace), "Options": endpoint.told})
        except BaseException:
            self._tell(network, endpoint, "DeleteEndpoint")
            raise
        try:
            self._take_gateways(network, endpoint, joined)
            self._take_link(endpoint, joined, namespace, rtnl)
        except BaseException:
            self.disconnect(network, endpoint)
            raise

    def publish(self, endpoint: Endpoint) -> None:
        """Tell the plug-in that the endpoint is the way out now, and so where ports are to be published."""
        ids = {"NetworkID": endpoint.network_id, "EndpointID": endpoint.id}
        try:
            self._call("ProgramExternalConnectivity", {**ids, "Options": endpoint.told})
        except MethodMissing:
            return
        except EngineError as exc:
            raise System(
                "driver failed programming external connectivity on endpoint "
                f"{endpoint.name} ({endpoint.id}): {exc.message}"
            ) from exc

    def unpublish(self, endpoint: Endpoint) -> None:
        """Undo `publish`; what the plug-in has to say against that is logged."""
        ids = {"NetworkID": endpoint.network_id, "EndpointID": endpoint.id}
        try:
            self._call("RevokeExternalConnectivity", ids)
        except MethodMissing:
            return
        except EngineError as exc:
            log.warning("endpoint %s: %s", endpoint.name, exc.message)

    def restore(self, network: Network, endpoint: Endpoint) -> None:
        """The plug-in has its own memory."""

    def disconnect(self, network: Network, endpoint: Endpoint) -> None:
        """Tell the plug-in that the endpoint is left and gone; what it has to say against that is logged."""
        if endpoint.publishes:
            self.unpublish(endpoint)
        self._tell(network, endpoint, "Leave", "DeleteEndpoint")

    def remove(self, network: Network, endpoint: Endpoint) -> None:
        """Nothing is left to do."""

    def _tell(self, network: Network, endpoint: Endpoint, *methods: str) -> None:
        for method in methods:
            try:
                self._call(method, {"NetworkID": network.id, "EndpointID": endpoint.id})
            except EngineError as exc:
                log.warning("endpoint %s on network %s: %s", endpoint.name, network.name, exc.message)

    def _call(self, method: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        with self._lock:
            if self._plugin is None:
                self._plugin = self._lookup()
        return self._plugin.call(f"{KIND}.{method}", arguments, prefix="remote: ")

    def _take_gateways(self, network: Network, endpoint: Endpoint, joined: Mapping[str, Any]) -> None:
        for version, name in ((4, "Gateway"), (6, "GatewayIPv6")):
            text = str(joined.get(name) or "")
            try:
                gateway = str(ip_address(text)) if text else ""
            except ValueError:
                raise System(f'unable to parse {name} "{text}"') from None
            if version == 4:
                endpoint.ipv4_gateway = gateway
            else:
                endpoint.ipv6_gateway = gateway
        routes = [str(route.get("Destination")) for route in joined.get("StaticRoutes") or ()]
        endpoint.leads_out = "0.0.0.0/0" in routes
        endpoint.lacks_gateway = not (
            network.internal
            or joined.get("DisableGatewayService") is True
            or endpoint.ipv4_gateway
            or endpoint.ipv6_gateway
            or endpoint.leads_out
        )

    def _take_link(
        self, endpoint: Endpoint, joined: Mapping[str, Any], namespace: Path, rtnl: NetlinkSocket
    ) -> None:
        asked = joined.get("InterfaceName") or {}
        source, prefix = str(asked.get("SrcName") or ""), str(asked.get("DstPrefix") or "")
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


def _network_options(record: NetworkRecord) -> dict[str, object]:
    options: dict[str, object] = {
        _OPTIONS: record.options,
        ENABLE[4]: record.enable_ipv4,
        ENABLE[6]: record.enable_ipv6,
    }
    if record.internal:
        options[_INTERNAL] = True
    return options


def _network_request(record: NetworkRecord) -> dict[str, object]:
    data: dict[int, list[dict[str, object]]] = {4: [], 6: []}
    for pool in record.pools:
        length = pool.subnet.partition("/")[2]
        described: dict[str, object] = {"AddressSpace": _address_space(record), "Pool": pool.subnet}
        if pool.gateway:
            described["Gateway"] = f"{pool.gateway}/{length}"
        if pool.aux_addresses:
            described["AuxAddresses"] = {
                name: f"{address}/{length}" for name, address in pool.aux_addresses.items()
            }
        data[6 if ":" in pool.subnet else 4].append(described)
    options = _network_options(record)
    return {"NetworkID": record.id, "Options": options, "IPv4Data": data[4], "IPv6Data": data[6]}


def _address_space(record: NetworkRecord) -> str:
    if record.ipam_driver == BUILT_IN:
        return f"{record.scope.capitalize()}Default"
    return record.address_space


def _interface(endpoint: Endpoint) -> dict[str, str]:
    def with_length(address: str, length: int) -> str:
        return f"{address}/{length}" if address else ""

    return {
        "Address": with_length(endpoint.ipv4_address, endpoint.ipv4_prefixlen),
        "AddressIPv6": with_length(endpoint.ipv6_address, endpoint.ipv6_prefixlen),
        "MacAddress": endpoint.mac_address,
    }


def _take_interface(endpoint: Endpoint, answer: Mapping[str, Any]) -> None:
    """What the plug-in chose; it may not change what was chosen for it."""
    if answer.get("MacAddress"):
        if endpoint.mac_address:
            raise System("remote: driver attempted to modify the MAC address of an endpoint")
        endpoint.mac_address = str(answer["MacAddress"])
    for name in ("Address", "AddressIPv6"):
        text = str(answer.get(name) or "")
        if not text:
            continue
        try:
            given = ip_interface(text)
        except ValueError:
            raise System(f"invalid CIDR address: {text}") from None
        if endpoint.ipv4_address if given.version == 4 else endpoint.ipv6_address:
            raise System("remote: driver attempted to modify the address of an endpoint")
        if given.version == 4:
            endpoint.ipv4_address, endpoint.ipv4_prefixlen = str(given.ip), given.network.prefixlen
        else:
            endpoint.ipv6_address, endpoint.ipv6_prefixlen = str(given.ip), given.network.prefixlen
