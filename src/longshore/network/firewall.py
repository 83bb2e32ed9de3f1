"""The firewall: one nftables table, whose rules are written once.

Networks and published ports are elements of sets and maps, so that what a packet costs, and what publishing
a port costs, do not grow with the number of containers. Every change is one transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from longshore.linux.nftables import Nftables, NftablesError
from longshore.network.endpoint import PublishedPort

_TABLE = """
set bridges { type ifname; }
set internal { type ifname; }
set same { type ifname . ifname; }
set local4 { type ifname . ipv4_addr; flags interval; }
set local6 { type ifname . ipv6_addr; flags interval; }
set masquerade4 { type ipv4_addr; flags interval; }
set masquerade6 { type ipv6_addr; flags interval; }
map published4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
map published6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
map published_any4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
map published_any6 { type inet_proto . inet_service : ipv6_addr . inet_service; }

chain publish {
    dnat ip to ip daddr . meta l4proto . th dport map @published4
    meta nfproto ipv4 dnat ip to meta l4proto . th dport map @published_any4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6
    meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @published_any6
}
# Bridges have route_localnet, for ports published on 127.0.0.1: without this, containers would reach the
# machine's loopback services.
chain loopback {
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
    iifname @bridges ip saddr 127.0.0.0/8 drop
}
# A neighbour may address 127.0.0.1 to us; translated here, it would get past the kernel's own check.
chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 127.0.0.0/8 return
    fib daddr type local jump publish
}
chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
}
# First: a container that reaches itself or a neighbour by a published port; the answer must come back here.
chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname . ip saddr @local4 ct status dnat masquerade
    oifname . ip6 saddr @local6 ct status dnat masquerade
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    ip saddr @masquerade4 oifname . ip saddr != @local4 masquerade
    ip6 saddr @masquerade6 oifname . ip6 saddr != @local6 masquerade
}
chain forward {
    type filter hook forward priority filter; policy accept;
    iifname . oifname @same accept
    iifname @internal drop
    oifname @internal drop
    iifname @bridges ct state established,related accept
    oifname @bridges ct state established,related accept
    iifname @bridges oifname @bridges drop
    oifname @bridges ct status dnat accept
    oifname @bridges drop
}
"""


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """What the firewall must know of a bridge: its link, its subnets, what may leave it."""

    link: str
    subnets: tuple[str, ...]
    masquerade: bool
    internal: bool


class Firewall:
    """One table. Methods block, raise NftablesError, and either take effect as a whole or not at all."""

    def __init__(self, table: str) -> None:
        """Binds to the network namespace of the calling thread."""
        self._table = f"inet {table}"
        self._nft = Nftables()

    def rebuild(self, bridges: Iterable[BridgeRules], ports: Iterable[PublishedPort]) -> None:
        """Replace the table, whatever is in it, by one with these bridges and ports."""
        commands = [f"add table {self._table}", f"delete table {self._table}"]
        commands.append(f"table {self._table} {{{_TABLE}}}")
        for bridge in bridges:
            commands += self._bridge("add", bridge)
        self._nft.run("\n".join([*commands, *self._elements("add", ports)]))

    def add_bridge(self, bridge: BridgeRules) -> None:
        """Let a bridge take part."""
        self._nft.run("\n".join(self._bridge("add", bridge)))

    def remove_bridge(self, bridge: BridgeRules) -> None:
        """Undo `add_bridge`."""
        self._nft.run("\n".join(self._bridge("delete", bridge)))

    def publish(self, ports: Iterable[PublishedPort]) -> None:
        """Publish ports, all or none."""
        if commands := self._elements("add", ports):
            self._nft.run("\n".join(commands))

    def unpublish(self, ports: Iterable[PublishedPort]) -> None:
        """Undo `publish`; ports that are not published are passed over."""
        ports = list(ports)
        if not ports:
            return
        try:
            self._nft.run("\n".join(self._elements("delete", ports)))
        except NftablesError:
            # Someone took elements, or the table, away: what is left goes one by one.
            for port in ports:
                try:
                    self._nft.run("\n".join(self._elements("delete", [port])))
                except NftablesError:
                    continue

    def remove(self) -> None:
        """Delete the table."""
        self._nft.run(f"add table {self._table}\ndelete table {self._table}")

    def text(self) -> str:
        """The table as `nft list table` shows it."""
        return self._nft.run(f"list table {self._table}")

    def close(self) -> None:
        """Free the connection to the kernel; the table stays."""
        self._nft.close()

    def _bridge(self, verb: str, bridge: BridgeRules) -> list[str]:
        link = f'"{bridge.link}"'
        elements = [("bridges", link), ("same", f"{link} . {link}")]
        if bridge.internal:
            elements.append(("internal", link))
        for subnet in bridge.subnets:
            version = 6 if ":" in subnet else 4
            elements.append((f"local{version}", f"{link} . {subnet}"))
            if bridge.masquerade:
                elements.append((f"masquerade{version}", subnet))
        return [f"{verb} element {self._table} {name} {{ {element} }}" for name, element in elements]

    def _elements(self, verb: str, ports: Iterable[PublishedPort]) -> list[str]:
        elements: dict[str, list[str]] = defaultdict(list)
        for port in ports:
            version = 6 if ":" in port.container_ip else 4
            key = f"{port.protocol} . {port.host_port}"
            name = f"published_any{version}"
            if port.host_ip not in ("0.0.0.0", "::"):
                name, key = f"published{version}", f"{port.host_ip} . {key}"
            target = f" : {port.container_ip} . {port.container_port}" if verb == "add" else ""
            elements[name].append(key + target)
        return [
            f"{verb} element {self._table} {name} {{ {', '.join(found)} }}"
            for name, found in elements.items()
        ]
