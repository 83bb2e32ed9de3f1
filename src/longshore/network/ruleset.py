"""The text of the firewall: rules that are written once, and the elements that networks and ports add."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from longshore.network.endpoint import PublishedPort

_MARK = "0x4c530000"
USERS = "user"
"""Chains, sets and maps of this name, or whose names begin with it and an underscore, belong to the user."""

TABLE = """
set bridges { type ifname; }
set internal { type ifname; }
set same { type ifname . ifname; }
set local4 { type ifname . ipv4_addr; flags interval; }
set local6 { type ifname . ipv6_addr; flags interval; }
set subnets4 { type ipv4_addr; flags interval; }
set subnets6 { type ipv6_addr; flags interval; }
set masquerade4 { type ipv4_addr; flags interval; }
set masquerade6 { type ipv6_addr; flags interval; }
map source4 { type ipv4_addr : ipv4_addr; flags interval; }
map source6 { type ipv6_addr : ipv6_addr; flags interval; }
set routed4 { type ifname; }
set routed6 { type ifname; }
set unprotected4 { type ifname; }
set unprotected6 { type ifname; }
set direct { type ifname; }
set trusted { type ifname . ifname; }
set open4 { type ipv4_addr . inet_proto . inet_service; }
set open6 { type ipv6_addr . inet_proto . inet_service; }
set open_ranges4 { type ipv4_addr . inet_proto . inet_service; flags interval; }
set open_ranges6 { type ipv6_addr . inet_proto . inet_service; flags interval; }
map published4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
map published6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
map published_any4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
map published_any6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
map ranges4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval; }
map ranges6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr; flags interval; }
map ranges_any4 { type inet_proto . inet_service : ipv4_addr; flags interval; }
map ranges_any6 { type inet_proto . inet_service : ipv6_addr; flags interval; }

# Of ranges the address alone is translated: the kernel cannot shift ports, so that only those are ranges
# whose numbers stay what they are.
chain publish {
    dnat ip to ip daddr . meta l4proto . th dport map @published4
    meta nfproto ipv4 dnat ip to meta l4proto . th dport map @published_any4
    dnat ip to ip daddr . meta l4proto . th dport map @ranges4
    meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ranges_any4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6
    meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @published_any6
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @ranges6
    meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @ranges_any6
}
# What containers are reached at by their own addresses.
chain open {
    ip daddr . meta l4proto . th dport @open4 accept
    ip daddr . meta l4proto . th dport @open_ranges4 accept
    ip6 daddr . meta l4proto . th dport @open6 accept
    ip6 daddr . meta l4proto . th dport @open_ranges6 accept
}
# Bridges have route_localnet, for ports published on 127.0.0.1: without this, containers would reach the
# machine's loopback services.
chain loopback {
    type filter hook prerouting priority raw; policy accept;
    ip daddr 127.0.0.0/8 iifname @bridges drop
    ip saddr 127.0.0.0/8 iifname @bridges drop
}
# A container with raw sockets may call itself anything but a member of another network. (Foreign addresses
# of its own, as a VPN's, are let through; so are answers, which may leave by another network than they came.)
chain spoofing {
    type filter hook prerouting priority mangle; policy accept;
    ct state new,invalid iifname @bridges ip saddr @subnets4 iifname . ip saddr != @local4 drop
    ct state new,invalid iifname @bridges ip6 saddr @subnets6 iifname . ip6 saddr != @local6 drop
}
# A neighbour may address 127.0.0.1 to us; translated here, it would get past the kernel's own check.
# (Behind iptables' chains: should this table outlive us, a dockerd that comes after us publishes before it.)
chain prerouting {
    type nat hook prerouting priority dstnat + 1; policy accept;
    ip daddr 127.0.0.0/8 return
    fib daddr type local jump publish
}
# The kernel lets nothing leave that comes from ::1: a relay is there for it.
chain output {
    type nat hook output priority -99; policy accept;
    ip6 daddr ::1 return
    fib daddr type local jump publish
}
# First: a container that reaches itself or a neighbour by a published port; the answer must come back here.
chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname . ip saddr @local4 ct status dnat masquerade
    oifname . ip6 saddr @local6 ct status dnat masquerade
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    oifname . ip saddr != @local4 snat ip to ip saddr map @source4
    oifname . ip6 saddr != @local6 snat ip6 to ip6 saddr map @source6
    ip saddr @masquerade4 oifname . ip saddr != @local4 masquerade
    ip6 saddr @masquerade6 oifname . ip6 saddr != @local6 masquerade
}
# With br_netfilter, who calls a neighbour by a port that it publishes is translated on the bridge: where
# neighbours are kept apart, the table of family bridge knows such a frame by its mark.
chain forward {
    type filter hook forward priority filter; policy accept;
    ct status dnat iifname . oifname @same meta mark set meta mark or MARK
    jump user
    iifname . oifname @same accept
    iifname @internal drop
    oifname @internal drop
    iifname @bridges ct state established,related accept
    oifname @bridges ct state established,related accept
    oifname @bridges ct status dnat accept
    meta nfproto ipv4 oifname @routed4 jump open
    meta nfproto ipv6 oifname @routed6 jump open
    oifname @routed4 meta l4proto icmp accept
    oifname @routed6 meta l4proto ipv6-icmp accept
    iifname @bridges oifname @bridges drop
    iifname . oifname @trusted jump open
    oifname @direct jump open
    meta nfproto ipv4 oifname @unprotected4 accept
    meta nfproto ipv6 oifname @unprotected6 accept
    oifname @bridges drop
}
""".replace("MARK", _MARK)

ISOLATION = """
set isolated { type ifname; }
set linked { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
chain forward {
    type filter hook forward priority 200; policy accept;
    iifname != @isolated accept
    oifname != @isolated accept
    ether type arp accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    ip saddr . ip daddr . meta l4proto . th dport @linked accept
    ip daddr . ip saddr . meta l4proto . th sport @linked accept
    meta mark and MARK == MARK accept
    drop
}
""".replace("MARK", _MARK)
"""Of a table of family bridge: what endpoints of one bridge may not say to each other (icc=false)."""


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """What the firewall must know of a bridge: its link, its subnets, what may leave and enter it.

    `routed` and `unprotected` hold IP versions, 4 and 6; `sources` the addresses that outgoing packets get
    in place of the machine's own; `trusted` links from which published ports of containers are reached by
    the containers' addresses, as with `direct` from everywhere.
    """

    link: str
    subnets: tuple[str, ...]
    masquerade: bool
    internal: bool
    routed: frozenset[int] = frozenset()
    unprotected: frozenset[int] = frozenset()
    sources: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A legacy link: `parent`, an address, may reach this port of `child` in spite of icc=false."""

    parent: str
    child: str
    protocol: str
    port: int


Elements = Iterator[tuple[str, str]]
"""Names of sets or maps, and what is added to them."""


def table_text(*, ipv6: bool) -> str:
    """What is in the table to begin with; without IPv6 whatever speaks that may pass."""
    return (
        TABLE if ipv6 else TABLE.replace("    jump user\n", "    jump user\n    meta nfproto ipv6 accept\n")
    )


def isolation_text(*, ipv6: bool) -> str:
    """As `table_text`, of the table of family bridge."""
    return ISOLATION if ipv6 else ISOLATION.replace("ether type arp", "ether type { arp, ip6 }")


def bridge_elements(bridge: BridgeRules) -> Elements:
    """What a bridge adds; of maps, the keys come with their values."""
    link = f'"{bridge.link}"'
    yield "bridges", link
    yield "same", f"{link} . {link}"
    if bridge.internal:
        yield "internal", link
    if bridge.direct:
        yield "direct", link
    for trusted in bridge.trusted:
        yield "trusted", f'"{trusted}" . {link}'
    for version in (4, 6):
        if version in bridge.routed:
            yield f"routed{version}", link
        if version in bridge.unprotected:
            yield f"unprotected{version}", link
    for subnet in bridge.subnets:
        version = 6 if ":" in subnet else 4
        yield f"local{version}", f"{link} . {subnet}"
        yield f"subnets{version}", subnet
        source = next((one for one in bridge.sources if (":" in one) == (version == 6)), "")
        if bridge.masquerade and version not in bridge.routed:
            if source:
                yield f"source{version}", f"{subnet} : {source}"
            else:
                yield f"masquerade{version}", subnet


def port_elements(ports: Iterable[PublishedPort]) -> Elements:
    """What an endpoint's published ports add, nothing for those that relays serve.

    Neighbouring ports whose numbers stay what they are become one element.
    """
    translated: dict[tuple[str, str, str], dict[int, int]] = defaultdict(dict)
    opened: dict[tuple[str, str], set[int]] = defaultdict(set)
    for port in ports:
        if port.direct:
            opened[port.container_ip, port.protocol].add(port.container_port)
        if port.host_port and (":" in port.host_ip) == (":" in port.container_ip):
            place = port.container_ip, port.host_ip, port.protocol
            translated[place][port.host_port] = port.container_port
    for (container_ip, host_ip, protocol), numbers in translated.items():
        yield from _translations(container_ip, host_ip, protocol, numbers)
    for (container_ip, protocol), container_ports in opened.items():
        version = 6 if ":" in container_ip else 4
        for first, last in _runs(container_ports):
            name = f"open{version}" if first == last else f"open_ranges{version}"
            yield name, f"{container_ip} . {protocol} . {_span(first, last)}"


def _translations(container_ip: str, host_ip: str, protocol: str, numbers: Mapping[int, int]) -> Elements:
    """Of host ports to a container's ports."""
    version = 6 if ":" in container_ip else 4
    anywhere = host_ip in ("0.0.0.0", "::")
    suffix, place = (f"_any{version}", "") if anywhere else (f"{version}", f"{host_ip} . ")
    for first, last in _runs(host for host, inside in numbers.items() if host == inside):
        key = f"{place}{protocol} . {_span(first, last)}"
        if first == last:
            yield f"published{suffix}", f"{key} : {container_ip} . {first}"
        else:
            yield f"ranges{suffix}", f"{key} : {container_ip}"
    for host, inside in numbers.items():
        if host != inside:
            yield f"published{suffix}", f"{place}{protocol} . {host} : {container_ip} . {inside}"


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each unbroken run."""
    first = last = -1
    for number in sorted(numbers):
        if number != last + 1:
            if last >= 0:
                yield first, last
            first = number
        last = number
    if last >= 0:
        yield first, last


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def link_elements(link: Link) -> Elements:
    """What a legacy link adds to the table of family bridge."""
    yield "linked", f"{link.parent} . {link.child} . {link.protocol} . {link.port}"


def commands(verb: str, table: str, elements: Iterable[tuple[str, str]]) -> list[str]:
    """nft(8) commands that add or delete the elements."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, element in elements:
        # The value of a map's element is no part of what is deleted.
        found[name].append(element if verb == "add" else element.partition(" : ")[0])
    return [f"{verb} element {table} {name} {{ {', '.join(some)} }}" for name, some in found.items()]


def rule_count(text: str) -> int:
    """How many rules the text of a table has, ours or as nft(8) lists it."""
    count, inside = 0, False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("chain ") or line == "}":
            inside = line != "}"
        elif inside and line and not line.startswith(("type ", "#")):
            count += 1
    return count


def users_part(listing: str) -> dict[str, str]:
    """What in the listing of our table belongs to the user, as nft(8) takes it, by kind and name."""
    found = {}
    block = re.compile(r"^\t((?:chain|set|map) (\w+)) \{\n.*?^\t\}\n", re.MULTILINE | re.DOTALL)
    for match in block.finditer(listing):
        if match[2] == USERS or match[2].startswith(f"{USERS}_"):
            found[match[1]] = match[0]
    return found
