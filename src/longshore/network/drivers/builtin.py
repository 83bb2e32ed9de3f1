"""The drivers that need no plug-in."""

from __future__ import annotations

from collections.abc import Callable

from longshore.network.drivers import DriverRegistry, Machine
from longshore.network.drivers.bridge import BridgeDriver
from longshore.network.drivers.null import NullDriver
from longshore.network.drivers.vlan import VlanDriver
from longshore.network.record import NetworkRecord


def register_drivers(
    drivers: DriverRegistry, machine: Machine, records: Callable[[], list[NetworkRecord]]
) -> None:
    """Let networks be made of every kind that Docker has on one machine; `records` gives those there are."""
    drivers.register(BridgeDriver(machine))
    for name in ("macvlan", "ipvlan"):
        drivers.register(VlanDriver(name, machine, records))
    drivers.register(NullDriver("host"))
    drivers.register(NullDriver("null"))
