"""A machine with a network and IPAM plug-in on it."""

from __future__ import annotations

from network.addressing import Addressing
from network.cabling import Cabling, Served
from network.machines import Machine

from longshore.network.controller import NetworkController
from longshore.plugins import plugin_of


class Office:
    """A machine with a plug-in of both kinds on it."""

    def __init__(self, host: Machine) -> None:
        self.host = host
        self.cabling = Cabling()
        self.addressing = Addressing("198.51.100.0/25", "10.91.0.0/24", "10.92.0.0/24", "fd00:91::/64")
        self.server = Served(host.root / "plugins" / "office.sock", self.cabling, self.addressing)
        self.server.failure_status = 200

    def controller(self, **settings: object) -> NetworkController:
        return self.host.controller(
            plugin=lambda name: plugin_of(name, self.host.root / "plugins", []), **settings
        )

    def is_empty(self) -> bool:
        return not self.addressing.pools and not self.addressing.taken
