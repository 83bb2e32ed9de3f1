"""The drivers macvlan and ipvlan: endpoints stand on a link of the machine, beside the machine itself."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from longshore.errors import InvalidParameter, System
from longshore.linux import rtnetlink
from longshore.linux.netlink import NetlinkSocket
from longshore.network.drivers import Machine
from longshore.network.drivers.inside import configure
from longshore.network.endpoint import Endpoint
from longshore.network.network import Network
from longshore.network.options import check_link_name, mtu
from longshore.network.record import NetworkRecord

_MODES = {
    "macvlan": {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8},
    "ipvlan": {"l2": 0, "l3": 1, "l3s": 2},
}
_DEFAULTS = {"macvlan": "bridge", "ipvlan": "l2"}
_IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}


class VlanDriver:
    """Networks on a parent link: one of the machine's, a VLAN of one that is made, or a dummy."""

    addressed = True
    publishes = False
    remote = False

    def __init__(self, name: str, machine: Machine, records: Callable[[], Iterable[NetworkRecord]]) -> None:
        """`name` is macvlan or ipvlan; `records` gives those of all networks there are."""
        self.name = name
        self.gives_mac = name == "ipvlan"
        self._machine = machine
        self._records = records

    def prepare(self, record: NetworkRecord) -> None:
        """Check mode and parent. Raises InvalidParameter, System with Docker's messages."""
        mode = self._mode(record)
        if mode not in _MODES[self.name]:
            raise InvalidParameter(
                f"requested {self.name} mode '{mode}' is not valid, '{_DEFAULTS[self.name]}' mode is the "
                f"{self.name} driver default"
            )
        flag = record.options.get("ipvlan_flag", "")
        if self.name == "ipvlan" and flag and flag not in _IPVLAN_FLAGS:
            raise InvalidParameter(
                f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default"
            )
        mtu(record.options)
        parent = record.options.get("parent", "")
        if parent == "lo":
            raise InvalidParameter(f"loopback interface is not a valid {self.name} parent link")
        if parent:
            check_link_name(parent)
        record.parent = parent or self._dummy(record)
        for other in self._records():
            if other.parent == record.parent:
                self._check_sharing(record, other)

    def consult(self, record: NetworkRecord) -> None:
        """Nothing to find out."""

    def needs_gateway(self, record: NetworkRecord, version: int) -> bool:
        """Not where there is no way out, or where the kernel routes by itself."""
        return not record.internal and not self._routes_itself(record) and bool(record.options.get("parent"))

    def create(self, network: Network) -> None:
        """Make the parent, unless it is there."""
        record, rtnl = network.record, self._machine.rtnl
        parent = record.parent = record.parent or record.options.get("parent") or self._dummy(record)
        if rtnetlink.link_by_name(rtnl, parent) is not None:
            return
        if parent == self._dummy(record):
            rtnetlink.create_link(rtnl, parent, "dummy")
        else:
            self._create_vlan(parent)
        record.link_made = True

    def delete(self, network: Network) -> None:
        """Delete the parent, if it was made for the network."""
        if network.record.link_made:
            with suppress(OSError):
                rtnetlink.delete_link(self._machine.rtnl, network.record.parent)

    def connect(self, network: Network, endpoint: Endpoint, namespace: Path, rtnl: NetlinkSocket) -> None:
        """Make the interface inside the namespace."""
        host = self._machine.rtnl
        parent = rtnetlink.link_by_name(host, network.record.parent)
        if parent is None:
            raise System(f"parent link {network.record.parent} of network {network.name} is gone")
        mode = _MODES[self.name][self._mode(network.record)]
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            rtnetlink.create_on_parent(
                host,
                endpoint.interface,
                self.name,
                parent=parent.index,
                namespace=fd,
                mode=mode,
                flags=_IPVLAN_FLAGS[network.options.get("ipvlan_flag") or "bridge"],
                address=endpoint.mac_address if self.name == "macvlan" else "",
                mtu=mtu(network.options),
            )
        finally:
            os.close(fd)
        try:
            configure(endpoint, namespace, rtnl)
        except BaseException:
            rtnetlink.delete_link(rtnl, endpoint.interface)
            raise
        endpoint.device_route = self._routes_itself(network.record) and not network.internal
        link = rtnetlink.link_by_name(rtnl, endpoint.interface)
        if link is not None and self.name == "ipvlan":
            endpoint.mac_address = link.address

    def publish(self, endpoint: Endpoint) -> None:
        """Nothing is published."""

    def unpublish(self, endpoint: Endpoint) -> None:
        """Nothing is published."""

    def restore(self, network: Network, endpoint: Endpoint) -> None:
        """Nothing is outside the namespace."""

    def disconnect(self, network: Network, endpoint: Endpoint) -> None:
        """Nothing is outside the namespace."""

    def remove(self, network: Network, endpoint: Endpoint) -> None:
        """Nothing is outside the namespace."""

    def _dummy(self, record: NetworkRecord) -> str:
        return f"{'dm' if self.name == 'macvlan' else 'di'}-{record.id[:12]}"

    def _mode(self, record: NetworkRecord) -> str:
        return record.options.get(f"{self.name}_mode") or _DEFAULTS[self.name]

    def _routes_itself(self, record: NetworkRecord) -> bool:
        return self.name == "ipvlan" and self._mode(record) in ("l3", "l3s")

    def _check_sharing(self, record: NetworkRecord, other: NetworkRecord) -> None:
        if self.name == "macvlan" and other.driver == "macvlan":
            if self._mode(record) == "passthru":
                raise System(
                    f"cannot use mode passthru, macvlan network {other.id} is already using parent interface "
                    f"{record.parent}"
                )
            if self._mode(other) == "passthru":
                raise System(
                    f"macvlan network {other.id} is already using parent interface {record.parent} "
                    "in mode passthru"
                )
            return
        raise System(f"network {self._dummy(other)} is already using parent interface {record.parent}")

    def _create_vlan(self, name: str) -> None:
        if "." not in name:
            raise InvalidParameter(f"invalid subinterface vlan name {name}, example formatting is eth0.10")
        parent, _, number = name.partition(".")
        if not parent or not re.fullmatch(r"\d{1,9}", number, re.ASCII):
            raise InvalidParameter(
                "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received "
                f"{name}"
            )
        if not 1 <= int(number) <= 4094:
            raise InvalidParameter(f"vlan id must be between 1-4094, received: {int(number)}")
        link = rtnetlink.link_by_name(self._machine.rtnl, parent)
        if link is None:
            raise InvalidParameter(
                f"failed to find master interface {parent} on the Docker host: Link not found"
            )
        try:
            rtnetlink.create_vlan(self._machine.rtnl, name, parent=link.index, id=int(number))
        except OSError as exc:
            raise System(f"failed to create {name} vlan link: {exc.strerror}") from exc
