"""Network drivers: what a network is made of, behind one protocol, looked up by name.

A driver does what it is told, in the calling thread, and keeps no state: addresses, ports and records are
its caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from longshore.errors import EngineError, Forbidden, NotFound
from longshore.linux.netlink import NetlinkSocket
from longshore.network.config import NetworkConfig
from longshore.network.endpoint import Endpoint
from longshore.network.firewall import Firewall
from longshore.network.network import Network
from longshore.network.record import NetworkRecord

if TYPE_CHECKING:
    from longshore.network.drivers.remote import PluginClient, RemoteDriver

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Machine:
    """What drivers work with in the machine's own network namespace."""

    config: NetworkConfig
    rtnl: NetlinkSocket
    firewall: Firewall | None


class Driver(Protocol):
    """All methods block and raise OSError or EngineError; one that fails leaves nothing behind."""

    name: str
    addressed: bool
    """Whether its networks have subnets and its endpoints addresses."""
    publishes: bool
    """Whether ports of its endpoints are published on the machine."""
    gives_mac: bool
    """Whether interfaces come with MAC addresses, unless a user asks for one."""
    remote: bool
    """Whether it is a plug-in, which publishes ports itself, and may lack a way out."""

    def prepare(self, record: NetworkRecord) -> None:
        """Check a new network's options and complete its record, with no look at the machine."""

    def consult(self, record: NetworkRecord) -> None:
        """Find out what is to be known before a new network gets its addresses."""

    def needs_gateway(self, record: NetworkRecord, version: int) -> bool:
        """Whether a subnet of that IP version gets a gateway where the user names none."""

    def create(self, network: Network) -> None:
        """Make, or find again, what the network needs on the machine."""

    def delete(self, network: Network) -> None:
        """Undo `create`; what is gone already is passed over."""

    def connect(self, network: Network, endpoint: Endpoint, namespace: Path, rtnl: NetlinkSocket) -> None:
        """Give the namespace the endpoint's interface; `rtnl` works inside the namespace."""

    def publish(self, endpoint: Endpoint) -> None:
        """Let the endpoint's ports be reached; `connect` does so by itself."""

    def unpublish(self, endpoint: Endpoint) -> None:
        """Undo `publish`; `disconnect` does so by itself."""

    def restore(self, network: Network, endpoint: Endpoint) -> None:
        """Make good what a running container's endpoint needs outside its namespace."""

    def disconnect(self, network: Network, endpoint: Endpoint) -> None:
        """Begin to undo `connect`: nobody reaches the endpoint's ports any more."""

    def remove(self, network: Network, endpoint: Endpoint) -> None:
        """Undo the rest, which may take its time; until then the endpoint's addresses are not free."""


class DriverRegistry:
    """The drivers known, by name."""

    def __init__(self, plugin: Callable[[str], PluginClient] | None = None) -> None:
        """`plugin` finds plug-ins by name, or raises NotFound."""
        self.machine: Machine | None = None
        self._drivers: dict[str, Driver] = {}
        self._remote: dict[str, RemoteDriver] = {}
        self._plugin = plugin

    def register(self, driver: Driver) -> None:
        """Make a driver known, in place of one of the same name."""
        self._drivers[driver.name] = driver

    def find(self, name: str) -> Driver | None:
        """The driver of that name, or None."""
        return self._drivers.get(name)

    def scope(self, name: str, asked: str) -> str:
        """How far networks of a driver reach, `local` or `global`. Raises Forbidden if less is asked for."""
        found = getattr(self._drivers.get(name), "scope", "local")
        if found == "global" and asked == "local":
            raise Forbidden(f"cannot downgrade network scope for {name} networks")
        return str(found)

    def names(self) -> list[str]:
        """Of the drivers known, in order."""
        return sorted(self._drivers)

    def discover(self, name: str) -> None:
        """Make a plug-in known that is a network driver, and what it can do.

        Blocks; nothing happens if there is no such plug-in.
        """
        known = self._drivers.get(name)
        if self._plugin is None or name == "none" or (known is not None and not known.remote):
            return
        with suppress(NotFound):
            if not self._plugin(name).implements("NetworkDriver"):
                return
            driver = self._remote.get(name) or self._made(name)
            if driver is None:
                return
            try:
                driver.learn()
            except EngineError as exc:
                log.error("plugin %s: %s", name, exc.message)
                return
            self._keep(driver)

    def remote(self, name: str) -> RemoteDriver | None:
        """The driver that is a plug-in, which may not be up yet; None where there are no plug-ins."""
        driver = self._remote.get(name) or self._made(name)
        return self._keep(driver) if driver is not None else None

    def _made(self, name: str) -> RemoteDriver | None:
        plugin, machine = self._plugin, self.machine
        if plugin is None or machine is None:
            return None
        from longshore.network.drivers.remote import RemoteDriver

        return RemoteDriver(name, machine, lambda: plugin(name))

    def _keep(self, driver: RemoteDriver) -> RemoteDriver:
        kept = self._remote.setdefault(driver.name, driver)  # Others may have found it meanwhile.
        self.register(kept)
        return kept
