"""The bridge driver: a Linux bridge for each network, a veth pair for each endpoint."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import ExitStack, closing, suppress
from ipaddress import ip_interface
from pathlib import Path

from longshore.errors import Forbidden, InvalidParameter
from longshore.linux import rtnetlink
from longshore.linux.conntrack import forget_udp_flows
from longshore.linux.namespaces import in_network_namespace
from longshore.linux.netlink import NETLINK_NETFILTER, NetlinkSocket
from longshore.network.drivers import Machine
from longshore.network.endpoint import Endpoint
from longshore.network.firewall import BridgeRules
from longshore.network.foreign import admit, dismiss
from longshore.network.network import ICC, MASQUERADE, MTU, Network, flag

_SYSCTL = Path("/proc/sys/net")


class BridgeDriver:
    """Networks on bridges of this machine."""

    name = "bridge"
    addressed = True

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def create(self, network: Network) -> None:
        """Make the bridge or adopt one of its name, with its addresses, and let the firewall know it."""
        rtnl, link_name = self._machine.rtnl, network.record.link
        with ExitStack() as undo:
            link = rtnetlink.link_by_name(rtnl, link_name)
            if link is None:
                rtnetlink.create_bridge(rtnl, link_name, _random_mac(), mtu(network) or 1500)
                undo.callback(rtnetlink.delete_link, rtnl, link_name)
                network.record.link_made = True
                link = rtnetlink.link_by_name(rtnl, link_name)
            if link is None or link.kind != "bridge":
                raise InvalidParameter(f"link {link_name} is not a bridge")
            present = rtnetlink.addresses(rtnl, link.index)
            if network.enable_ipv6:
                _write("ipv6/conf/all/forwarding", "1")
                _write(f"ipv6/conf/{link_name}/disable_ipv6", "0")
            for pool in network.pools:
                prefix = pool.subnet.partition("/")[2]
                address = ip_interface(f"{pool.gateway}/{prefix}") if pool.gateway else None
                if address is not None and address not in present:
                    rtnetlink.add_address(rtnl, link.index, address)
            rtnetlink.set_link_up(rtnl, link.index)
            # Lets ports be published on 127.0.0.1; the firewall's chain `loopback` closes what it opens.
            _write(f"ipv4/conf/{link_name}/route_localnet", "1" if self._machine.firewall else "0")
            if self._machine.firewall:
                if not self._machine.starting:
                    self._machine.firewall.add_bridge(self.rules(network))
                    undo.callback(self._machine.firewall.remove_bridge, self.rules(network))
                admit(self._machine.config.table, link_name)
            undo.pop_all()

    def delete(self, network: Network) -> None:
        """Remove the bridge and its firewall elements."""
        if self._machine.firewall:
            with suppress(OSError):
                self._machine.firewall.remove_bridge(self.rules(network))
            dismiss(self._machine.config.table, network.record.link)
        if network.record.link_made:
            rtnetlink.delete_link(self._machine.rtnl, network.record.link)

    def rules(self, network: Network) -> BridgeRules:
        """What the firewall must know of the network."""
        config = self._machine.config
        return BridgeRules(
            link=network.record.link,
            subnets=tuple(pool.subnet for pool in network.pools),
            masquerade=not network.internal and flag(network.options, MASQUERADE, default=config.ip_masq),
            internal=network.internal,
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
                    mtu=mtu(network),
                    master=bridge.index,
                )
            finally:
                os.close(fd)
            undo.callback(rtnetlink.delete_link, host, endpoint.host_interface)
            self._set_port(network, endpoint)
            _configure(endpoint, namespace, rtnl)
            # The kernel notes a carrier up to a second late, and until then packets are dropped; to be asked
            # makes it look. The bridge comes last: its first port gives it its carrier.
            rtnetlink.link_by_name(rtnl, endpoint.interface)
            rtnetlink.link_by_name(host, endpoint.host_interface)
            rtnetlink.link_by_name(host, network.record.link)
            if firewall:
                firewall.publish(endpoint.ports)
                _forget_flows(endpoint)
            undo.pop_all()

    def restore(self, network: Network, endpoint: Endpoint) -> None:
        """Put the endpoint back on its bridge, should the bridge have been made anew."""
        host = self._machine.rtnl
        bridge = rtnetlink.link_by_name(host, network.record.link)
        link = rtnetlink.link_by_name(host, endpoint.host_interface)
        if bridge and link and link.master != bridge.index:
            rtnetlink.set_master(host, link.index, bridge.index)
            self._set_port(network, endpoint)

    def disconnect(self, network: Network, endpoint: Endpoint) -> None:
        """Take the endpoint's ports back."""
        if self._machine.firewall:
            self._machine.firewall.unpublish(endpoint.ports)
            _forget_flows(endpoint)

    def remove(self, network: Network, endpoint: Endpoint) -> None:
        """Remove the veth pair."""
        # On a socket of its own: the kernel waits some 20 ms for readers of the link, others need not.
        with closing(NetlinkSocket()) as rtnl:
            rtnetlink.delete_link(rtnl, endpoint.host_interface)

    def _set_port(self, network: Network, endpoint: Endpoint) -> None:
        # With br_netfilter a container that reaches itself by its published port is translated on the bridge,
        # and the frame must go out where it came in.
        hairpin, isolated = bool(endpoint.ports), not flag(network.options, ICC, default=True)
        if hairpin or isolated:
            link = rtnetlink.link_by_name(self._machine.rtnl, endpoint.host_interface)
            if link is not None:
                rtnetlink.set_bridge_port(self._machine.rtnl, link.index, hairpin=hairpin, isolated=isolated)


def mtu(network: Network) -> int:
    """The network's MTU; 0 is the kernel's default. Raises InvalidParameter."""
    text = network.options.get(MTU, "0")
    if not text.isdigit():
        raise InvalidParameter(f'failed to parse {MTU} value: "{text}": invalid syntax')
    return int(text)


def mac_of(ipv4_address: str) -> str:
    """A MAC for an endpoint: of its IPv4 address, so that neighbours' ARP caches stay true when a container
    takes over a released address; random without one."""
    if not ipv4_address:
        return _random_mac()
    return ":".join(["02", "42", *(f"{int(part):02x}" for part in ipv4_address.split("."))])


def _random_mac() -> str:
    return "02:42:" + secrets.token_bytes(4).hex(":")


def _configure(endpoint: Endpoint, namespace: Path, rtnl: NetlinkSocket) -> None:
    link = rtnetlink.link_by_name(rtnl, endpoint.interface)
    if link is None:
        raise OSError(errno.ENODEV, f"{endpoint.interface} is not in its namespace")
    if endpoint.ipv4_address:
        rtnetlink.add_address(
            rtnl, link.index, ip_interface(f"{endpoint.ipv4_address}/{endpoint.ipv4_prefixlen}")
        )
    if endpoint.ipv6_address:
        path = f"ipv6/conf/{endpoint.interface}/disable_ipv6"
        in_network_namespace(namespace, lambda: _write(path, "0"))
        rtnetlink.add_address(
            rtnl, link.index, ip_interface(f"{endpoint.ipv6_address}/{endpoint.ipv6_prefixlen}")
        )
    rtnetlink.set_link_up(rtnl, link.index)


def _forget_flows(endpoint: Endpoint) -> None:
    ports = {port.host_port for port in endpoint.ports if port.protocol == "udp"}
    if ports:
        # Without connection tracking's netlink there is nothing to forget with, and old flows time out.
        with suppress(OSError), closing(NetlinkSocket(NETLINK_NETFILTER)) as netfilter:
            forget_udp_flows(netfilter, ports)


def _write(name: str, value: str) -> None:
    # Absent where the kernel has no IPv6.
    with suppress(FileNotFoundError):
        (_SYSCTL / name).write_text(value)
