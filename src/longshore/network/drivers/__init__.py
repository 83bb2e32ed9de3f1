"""Network drivers: what a network is made of, behind one protocol, looked up by name.

A driver does what it is told, in the calling thread, and keeps no state: addresses, ports and records are
its caller's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from longshore.linux.netlink import NetlinkSocket
from longshore.network.config import NetworkConfig
from longshore.network.endpoint import Endpoint
from longshore.network.firewall import Firewall
from longshore.network.network import Network, NetworkRecord


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

    def prepare(self, record: NetworkRecord) -> None:
        """Check a new network's options and complete its record, with no look at the machine."""

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


@dataclass(slots=True)
class DriverRegistry:
    """The drivers known, by name."""

    drivers: dict[str, Driver] = field(default_factory=dict)

    def register(self, driver: Driver) -> None:
        """Make a driver known, in place of one of the same name."""
        self.drivers[driver.name] = driver

    def find(self, name: str) -> Driver | None:
        """The driver of that name, or None."""
        return self.drivers.get(name)
