"""Address managers other than the built-in one: plug-ins (libnetwork's docs/ipam.md), and `null`.

What is asked of them, and when, is in `managed`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import TYPE_CHECKING, Any, Protocol

from longshore.errors import EngineError, InvalidParameter, System
from longshore.network.ipam import IPNetwork, parse_network

if TYPE_CHECKING:
    from longshore.network.drivers.remote import PluginClient

KIND = "IpamDriver"
BUILT_IN = "default"
GATEWAY = "com.docker.network.gateway"
"""In the data of a pool: its gateway, with the prefix length."""
REQUEST_TYPE = "RequestAddressType"
"""Option of a request; the value GATEWAY says what the address is for."""
MAC_ADDRESS = "com.docker.network.endpoint.macaddress"
"""Option of a request: whose the address will be."""


class IpamDriver(Protocol):
    """All methods block and raise EngineError."""

    def needs_mac(self) -> bool:
        """Whether it wants to know the MAC address of who an address is for."""

    def needs_replay(self) -> bool | None:
        """Whether it forgets, so that after a restart everything is requested again; None if it says not."""

    def address_space(self, scope: str) -> str:
        """The name of its address space for networks of that scope, `local` or `global`."""

    def request_pool(
        self, space: str, pool: str, sub_pool: str, options: Mapping[str, str], version: int
    ) -> tuple[str, IPNetwork, dict[str, str]]:
        """The id of a pool, what it is, and what else there is to know of it."""

    def release_pool(self, id: str) -> None:
        """Give it back."""

    def request_address(
        self, pool: str, address: str, options: Mapping[str, str] | None
    ) -> IPv4Interface | IPv6Interface | None:
        """An address with its prefix length, the one that is named if one is; None where there are none."""

    def release_address(self, pool: str, address: str) -> None:
        """Give it back."""


class NullIpam:
    """No addresses at all, for drivers that see to that themselves."""

    def needs_mac(self) -> bool:
        """No."""
        return False

    def needs_replay(self) -> bool:
        """No."""
        return False

    def address_space(self, scope: str) -> str:
        """One for all."""
        return "null"

    def request_pool(
        self, space: str, pool: str, sub_pool: str, options: Mapping[str, str], version: int
    ) -> tuple[str, IPNetwork, dict[str, str]]:
        """Everything, which nobody is given anything of."""
        if pool or sub_pool:
            what = "subpool" if not pool else "pool"
            raise InvalidParameter(f"null ipam driver does not handle specific address {what} requests")
        everything = "::/0" if version == 6 else "0.0.0.0/0"
        return f"null/{everything}", parse_network(everything), {}

    def release_pool(self, id: str) -> None:
        """Nothing to do."""

    def request_address(self, pool: str, address: str, options: Mapping[str, str] | None) -> None:
        """None."""

    def release_address(self, pool: str, address: str) -> None:
        """Nothing to do."""


class RemoteIpam:
    """One plug-in."""

    def __init__(self, name: str, lookup: Callable[[], PluginClient]) -> None:
        """`lookup` finds the plug-in, which need not be there before something is asked of it."""
        self.name = name
        self._lookup = lookup
        self._plugin: PluginClient | None = None
        self._capabilities: dict[str, Any] | None = None
        self._spaces: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def needs_mac(self) -> bool:
        """As it says; who does not say has no needs."""
        return self._capable("RequiresMACAddress") is True

    def needs_replay(self) -> bool | None:
        """As it says."""
        return self._capable("RequiresRequestReplay")

    def address_space(self, scope: str) -> str:
        """As it says."""
        if self._spaces is None:
            self._spaces = self._call("GetDefaultAddressSpaces", {})
        return str(self._spaces.get(f"{scope.capitalize()}DefaultAddressSpace") or "")

    def request_pool(
        self, space: str, pool: str, sub_pool: str, options: Mapping[str, str], version: int
    ) -> tuple[str, IPNetwork, dict[str, str]]:
        """Ask for one."""
        asked = {"AddressSpace": space, "Pool": pool, "SubPool": sub_pool, "Options": dict(options)}
        answer = self._call("RequestPool", {**asked, "V6": version == 6})
        id = str(answer.get("PoolID") or "")
        try:
            given = parse_network(str(answer.get("Pool") or ""))
            if given.version != version:
                raise InvalidParameter(f"{given} is no IPv{version} pool")
        except InvalidParameter as exc:
            self.release_pool(id)
            raise System(f"ipam driver {self.name}: {exc.message}") from exc
        data = answer.get("Data")
        return id, given, {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}

    def release_pool(self, id: str) -> None:
        """Tell it."""
        self._call("ReleasePool", {"PoolID": id})

    def request_address(
        self, pool: str, address: str, options: Mapping[str, str] | None
    ) -> IPv4Interface | IPv6Interface:
        """Ask for one."""
        answer = self._call("RequestAddress", {"PoolID": pool, "Address": address, "Options": options})
        given = str(answer.get("Address") or "")
        if not given:
            raise System("IPAM plugin did not return any IP address")
        try:
            if "/" not in given:
                raise ValueError("no prefix length")
            return ip_interface(given)
        except ValueError:
            raise System(f"ipam driver {self.name}: invalid CIDR address: {given}") from None

    def release_address(self, pool: str, address: str) -> None:
        """Tell it."""
        self._call("ReleaseAddress", {"PoolID": pool, "Address": address})

    def _capable(self, what: str) -> bool | None:
        if self._capabilities is None:
            try:
                self._capabilities = self._call("GetCapabilities", {})
            except EngineError:  # Older ones have no such method.
                return None
        return self._capabilities.get(what) is True

    def _call(self, method: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        with self._lock:
            if self._plugin is None:
                self._plugin = self._lookup()
        return self._plugin.call(f"{KIND}.{method}", arguments, complaint="Error", prefix="remote: ")
