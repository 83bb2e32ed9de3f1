"""The drivers of the networks `none` and `host`: nothing to make, nothing to connect."""

from __future__ import annotations

from pathlib import Path

from longshore.linux.netlink import NetlinkSocket
from longshore.network.endpoint import Endpoint
from longshore.network.network import Network
from longshore.network.record import NetworkRecord


class NullDriver:
    """Endpoints without an interface. As `host`, the sandbox is the machine's own namespace."""

    addressed = False
    publishes = False
    gives_mac = False
    remote = False

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self, record: NetworkRecord) -> None:
        """Nothing to do."""

    def consult(self, record: NetworkRecord) -> None:
        """Nothing to find out."""

    def needs_gateway(self, record: NetworkRecord, version: int) -> bool:
        """Never."""
        return False

    def create(self, network: Network) -> None:
        """Nothing to do."""

    def delete(self, network: Network) -> None:
        """Nothing to do."""

    def connect(self, network: Network, endpoint: Endpoint, namespace: Path, rtnl: NetlinkSocket) -> None:
        """Nothing to do."""

    def publish(self, endpoint: Endpoint) -> None:
        """Nothing to do."""

    def unpublish(self, endpoint: Endpoint) -> None:
        """Nothing to do."""

    def restore(self, network: Network, endpoint: Endpoint) -> None:
        """Nothing to do."""

    def disconnect(self, network: Network, endpoint: Endpoint) -> None:
        """Nothing to do."""

    def remove(self, network: Network, endpoint: Endpoint) -> None:
        """Nothing to do."""
