"""The bridge driver: a Linux bridge for each network, a veth pair for each endpoint."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from threading import Thread

from longshore.errors import Forbidden, InvalidParameter
from longshore.linux import rtnetlink
from longshore.linux.conntrack import FlowSweep, forget_udp_flows
from longshore.linux.netlink import NETLINK_NETFILTER, NetlinkSocket
from longshore.network.drivers import Machine
from longshore.network.drivers.inside import configure
from longshore.network.endpoint import Endpoint
from longshore.network.foreign import admit, dismiss
from longshore.network.network import Network
from longshore.network.options import (
    BRIDGE_NAME,
    ICC,
    INHIBIT_IPV4,
    MASQUERADE,
    SOURCES,
    check_bridge_options,
    check_link_name,
    flag,
    gateway_mode,
    mtu,
    trusted_interfaces,
)
from longshore.network.programs import Unanswered
from longshore.network.record import NetworkRecord
from longshore.network.ruleset import BridgeRules

log = logging.getLogger(__name__)

_SYSCTL = Path("/proc/sys/net")


class BridgeDriver:
    """Networks on bridges of this machine."""

    name = "bridge"
    addressed = True
    publishes = True
    gives_mac = False
    remote = False

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._flows = FlowSweep()

    def prepare(self, record: NetworkRecord) -> None:
        """Check the options and name the bridge. Raises InvalidParameter, Forbidden, System."""
        check_bridge_options(record.options, internal=record.internal)
        record.link = record.options.get(BRIDGE_NAME) or f"br-{record.id[:12]}"
        check_link_name(record.link)
        versions = [":" in pool.subnet for pool in record.pools if pool.subnet]
        if versions.count(True) > 1 or versions.count(False) > 1:
            raise Forbidden("bridge driver doesn't support multiple subnets")

    def consult(self, record: NetworkRecord) -> None:
        """Nothing to find out."""

    def needs_gateway(self, record: NetworkRecord, version: int) -> bool:
        """Not where containers are to be by themselves, or nobody would use it."""
        if gateway_mode(record.options, version) == "isolated":
            return False
        inhibited = version == 4 and flag(record.options, INHIBIT_IPV4, default=False)
        return not (inhibited and record.internal)

    def create(self, network: Network) -> None:
        """Make the bridge or adopt one of its name, with its addresses, and let the firewall know it."""
        rtnl, link_name = self._machine.rtnl, network.record.link
        with ExitStack() as undo:
            link = rtnetlink.link_by_name(rtnl, link_name)
            if link is None:
                rtnetlink.create_bridge(rtnl, link_name, random_mac(), mtu(network.options) or 1500)
                undo.callback(rtnetlink.delete_link, rtnl, link_name)
                network.record.link_made = True
                link = rtnetlink.link_by_name(rtnl, link_name)
            if link is None or link.kind != "bridge":
                raise InvalidParameter(f"link {link_name} is not a bridge")
            if network.enable_ipv6:
                if self._machine.config.ip_forward:
                    _forward_ipv6()
                _write(f"ipv6/conf/{link_name}/disable_ipv6", "0")
                # The kernel's own address would be one more that neighbours could reach.
                _write(f"ipv6/conf/{link_name}/accept_ra", "0")
            present = rtnetlink.addresses(rtnl, link.index)
            for address in self._addresses(network):
                if address not in present:
                    rtnetlink.add_address(rtnl, link.index, address)
            rtnetlink.set_link_up(rtnl, link.index)
            # Lets ports be published on 127.0.0.1; the firewall's chain `loopback` closes what it opens.
            _write(f"ipv4/conf/{link_name}/route_localnet", "1" if self._machine.firewall else "0")
            if self._machine.firewall:
                self._machine.firewall.add_bridge(self.rules(network))
                undo.callback(self._machine.firewall.remove_bridge, self.rules(network))
                try:
                    network.record.admitted |= admit(self._machine.config.table, link_name)
                except Unanswered as exc:
                    network.record.admitted = True
                    log.warning("others may drop what %s forwards: %s", link_name, exc)
            undo.pop_all()

    def delete(self, network: Network) -> None:
        """Remove the bridge and its firewall elements."""
        if self._machine.firewall:
            with suppress(OSError):
                self._machine.firewall.remove_bridge(self.rules(network))
            if network.record.admitted:
                dismiss(self._machine.config.table, network.record.link)
        if network.record.link_made:
            _delete_link(network.record.link)

    def rules(self, network: Network) -> BridgeRules:
        """What the firewall must know of the network."""
        config, options = self._machine.config, network.options
        modes = {version: network.gateway_mode(version) for version in (4, 6)}
        return BridgeRules(
            link=network.record.link,
            subnets=tuple(pool.subnet for pool in network.pools),
            masquerade=not network.internal and flag(options, MASQUERADE, default=config.ip_masq),
            internal=network.internal,
            routed=frozenset(version for version, mode in modes.items() if mode == "routed"),
            unprotected=frozenset(version for version, mode in modes.items() if mode == "nat-unprotected"),
            sources=tuple(options[name] for name in SOURCES.values() if options.get(name)),
            trusted=trusted_interfaces(options),
            direct=config.allow_direct_routing,
        )

    def connect(self, network: Network, endpoint: Endpoint, namespace: Path, rtnl: NetlinkSocket) -> None:
        """Make the veth pair, address its inner end, publish the endpoint's ports."""
        host, firewall = self._machine.rtnl, self._machine.firewall
        bridge = rtnetlink.link_by_name(host, network.record.link)
        if bridge is None:
            raise Forbidden(f"bridge {network.record.link} of network {network.name} is gone")
        with ExitStack() as undo:
            fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                rtnetlink.create_veth(
                    host,
                    endpoint.host_interface,
                    peer_name=endpoint.interface,
                    peer_namespace=fd,
                    peer_address=endpoint.mac_address,
                    mtu=mtu(network.options),
                    master=bridge.index,
                )
            finally:
                os.close(fd)
            undo.callback(rtnetlink.delete_link, host, endpoint.host_interface)
            self._set_port(network, endpoint)
            if firewall and not flag(network.options, ICC, default=True):
                firewall.isolate(endpoint.host_interface)
                undo.callback(firewall.unisolate, endpoint.host_interface)
            configure(endpoint, namespace, rtnl)
            # The kernel notes a carrier up to a second late, and until then packets are dropped; to be asked
            # makes it look. The bridge comes last: its first port gives it its carrier.
            rtnetlink.link_by_name(rtnl, endpoint.interface)
            rtnetlink.link_by_name(host, endpoint.host_interface)
            rtnetlink.link_by_name(host, network.record.link)
            self.publish(endpoint)
            undo.pop_all()

    def publish(self, endpoint: Endpoint) -> None:
        """Let the endpoint's ports be reached."""
        if self._machine.firewall and endpoint.ports:
            self._machine.firewall.publish(endpoint.id, endpoint.ports)
            _forget_flows(endpoint)

    def unpublish(self, endpoint: Endpoint) -> None:
        """Undo `publish`."""
        if self._machine.firewall and endpoint.ports:
            self._machine.firewall.unpublish(endpoint.id)
            _forget_flows(endpoint)

    def restore(self, network: Network, endpoint: Endpoint) -> None:
        """Put the endpoint back on its bridge, should the bridge have been made anew."""
        host = self._machine.rtnl
        bridge = rtnetlink.link_by_name(host, network.record.link)
        link = rtnetlink.link_by_name(host, endpoint.host_interface)
        if bridge and link and link.master != bridge.index:
            rtnetlink.set_master(host, link.index, bridge.index)
            self._set_port(network, endpoint)
        if self._machine.firewall:
            if not flag(network.options, ICC, default=True):
                self._machine.firewall.isolate(endpoint.host_interface)
            self._machine.firewall.publish(endpoint.id, endpoint.ports)

    def disconnect(self, network: Network, endpoint: Endpoint) -> None:
        """Take the endpoint's ports back."""
        self.unpublish(endpoint)
        if self._machine.firewall:
            self._machine.firewall.unisolate(endpoint.host_interface)
            if endpoint.ipv4_address:
                self._machine.firewall.unlink(endpoint.ipv4_address)

    def remove(self, network: Network, endpoint: Endpoint) -> None:
        """Remove the veth pair, and what is tracked of connections over it."""
        _delete_link(endpoint.host_interface)
        addresses = [address for address in (endpoint.ipv4_address, endpoint.ipv6_address) if address]
        if self._machine.firewall and addresses:
            with suppress(OSError):
                self._flows.forget(addresses)

    def _addresses(self, network: Network) -> Iterator[IPv4Interface | IPv6Interface]:
        """The bridge's own."""
        for pool in network.pools:
            version = 6 if ":" in pool.subnet else 4
            inhibited = version == 4 and flag(network.options, INHIBIT_IPV4, default=False)
            if pool.gateway and not inhibited and network.gateway_mode(version) != "isolated":
                yield ip_interface(f"{pool.gateway}/{pool.subnet.partition('/')[2]}")

    def _set_port(self, network: Network, endpoint: Endpoint) -> None:
        # With br_netfilter a container that reaches itself by its published port is translated on the bridge,
        # and the frame must go out where it came in. Without a firewall, icc=false is the bridge's matter.
        isolated = not self._machine.firewall and not flag(network.options, ICC, default=True)
        if endpoint.ports or isolated:
            link = rtnetlink.link_by_name(self._machine.rtnl, endpoint.host_interface)
            if link is not None:
                rtnetlink.set_bridge_port(
                    self._machine.rtnl, link.index, hairpin=bool(endpoint.ports), isolated=isolated
                )


def _delete_link(name: str) -> None:
    """Delete a link. The kernel shuts it and takes it from view at once, so that nothing passes it any more;
    then it waits some 20 ms for readers of the link, which nobody need wait for."""
    failures: list[OSError] = []

    def delete() -> None:
        try:
            with closing(NetlinkSocket()) as own:
                rtnetlink.delete_link(own, name)
        except OSError as exc:
            failures.append(exc)

    with closing(NetlinkSocket()) as rtnl:
        thread = Thread(target=delete, name=f"deletion of {name}")
        thread.start()
        while thread.is_alive() and rtnetlink.is_in_view(rtnl, name):
            thread.join(0.0005)
    if failures:
        raise failures[0]


def mac_of(ipv4_address: str) -> str:
    """A MAC for an endpoint: of its IPv4 address, so that neighbours' ARP caches stay true when a container
    takes over a released address; random without one."""
    if not ipv4_address:
        return random_mac()
    return ":".join(["02", "42", *(f"{int(part):02x}" for part in ipv4_address.split("."))])


def random_mac() -> str:
    """One that is administered locally."""
    return "02:42:" + secrets.token_bytes(4).hex(":")


def _forget_flows(endpoint: Endpoint) -> None:
    ports = {port.host_port for port in endpoint.ports if port.protocol == "udp"}
    if ports:
        # Without connection tracking's netlink there is nothing to forget with, and old flows time out.
        with suppress(OSError), closing(NetlinkSocket(NETLINK_NETFILTER)) as netfilter:
            forget_udp_flows(netfilter, ports)


def _forward_ipv6() -> None:
    """Become an IPv6 router, without forgetting what other routers announced to the machine."""
    if _read("ipv6/conf/all/forwarding") == "1":
        return
    for path in (_SYSCTL / "ipv6/conf").glob("*/accept_ra"):
        # A router listens to announcements only with 2.
        if path.parent.name not in ("all", "lo") and path.read_text().strip() == "1":
            path.write_text("2")
    _write("ipv6/conf/all/forwarding", "1")


def _read(name: str) -> str:
    try:
        return (_SYSCTL / name).read_text().strip()
    except FileNotFoundError:
        return ""


def _write(name: str, value: str) -> None:
    # Absent where the kernel has no IPv6.
    with suppress(FileNotFoundError):
        (_SYSCTL / name).write_text(value)
