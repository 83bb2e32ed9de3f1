"""Links, addresses and routes (rtnetlink(7)), as far as container networks need them.

Message and attribute numbers are those of linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)

from longshore.linux.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    NetlinkSocket,
    attribute,
    attributes,
    nested,
    text,
    u8,
    u32,
)

Interface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network

IFF_UP = 1
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_PROTINFO = 1, 3, 4, 10, 12
_IFLA_LINKINFO, _IFLA_NET_NS_FD = 18, 28
_IFLA_LINK, _IFLA_VLAN_ID, _IFLA_MACVLAN_MODE, _IFLA_IPVLAN_MODE, _IFLA_IPVLAN_FLAGS = 5, 1, 1, 1, 2
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_IFLA_BRPORT_MODE, _IFLA_BRPORT_ISOLATED = 4, 33
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_RT_TABLE_MAIN = 254
_RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RTN_UNICAST = 3, 0, 253, 1
_IFINFO = struct.Struct("=BxHiII")
_SIOCGIFINDEX = 0x8933
_IFREQ = struct.Struct("16s24x")
_IFADDR = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")
_CREATE = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface: `address` is its MAC, `kind` its driver ("" for hardware), `master` a bridge's
    index or 0, `peer` that of the link it is the other end of or made upon, in whichever namespace, or 0."""

    index: int
    name: str
    flags: int
    address: str
    mtu: int
    kind: str
    master: int
    peer: int


def create_bridge(rtnl: NetlinkSocket, name: str, mac_address: str, mtu: int) -> None:
    """Make a bridge and set it up. Raises OSError (EEXIST)."""
    payload = _ifinfo(flags=IFF_UP) + text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, _mac(mac_address))
    payload += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"))
    if mtu:
        payload += u32(_IFLA_MTU, mtu)
    rtnl.request(Message(_RTM_NEWLINK, payload, _CREATE))


def create_veth(
    rtnl: NetlinkSocket,
    name: str,
    *,
    peer_name: str,
    peer_namespace: int,
    peer_address: str,
    mtu: int = 0,
    master: int = 0,
) -> None:
    """Make a veth pair: one end here, up, on bridge `master`; its peer, still down, inside the namespace.

    `peer_namespace` is a file descriptor. One message does it all, so nothing half made is ever seen.
    Raises OSError (EEXIST).
    """
    size = u32(_IFLA_MTU, mtu) if mtu else b""
    peer = _ifinfo() + text(_IFLA_IFNAME, peer_name) + size
    peer += u32(_IFLA_NET_NS_FD, peer_namespace)
    if peer_address:
        peer += attribute(_IFLA_ADDRESS, _mac(peer_address))
    payload = _ifinfo(flags=IFF_UP) + text(_IFLA_IFNAME, name) + size
    if master:
        payload += u32(_IFLA_MASTER, master)
    payload += nested(
        _IFLA_LINKINFO,
        text(_IFLA_INFO_KIND, "veth"),
        nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, peer)),
    )
    rtnl.request(Message(_RTM_NEWLINK, payload, _CREATE))


def create_link(rtnl: NetlinkSocket, name: str, kind: str) -> None:
    """Make a link that needs no more than its kind, such as dummy, and set it up. Raises OSError."""
    payload = _ifinfo(flags=IFF_UP) + text(_IFLA_IFNAME, name)
    payload += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind))
    rtnl.request(Message(_RTM_NEWLINK, payload, _CREATE))


def create_vlan(rtnl: NetlinkSocket, name: str, *, parent: int, id: int) -> None:
    """Make the link of a VLAN (802.1Q) on the link of index `parent`, and set it up. Raises OSError."""
    payload = _ifinfo(flags=IFF_UP) + text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent)
    data = nested(_IFLA_INFO_DATA, attribute(_IFLA_VLAN_ID, struct.pack("=H", id)))
    payload += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "vlan"), data)
    rtnl.request(Message(_RTM_NEWLINK, payload, _CREATE))


def create_on_parent(
    rtnl: NetlinkSocket,
    name: str,
    kind: str,
    *,
    parent: int,
    namespace: int,
    mode: int,
    flags: int = 0,
    address: str = "",
    mtu: int = 0,
) -> None:
    """Make a macvlan or ipvlan link, still down, inside the namespace, on the link of index `parent` here.

    `namespace` is a file descriptor; mode and flags are those of linux/if_link.h. Raises OSError.
    """
    payload = _ifinfo() + text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent)
    payload += u32(_IFLA_NET_NS_FD, namespace)
    if mtu:
        payload += u32(_IFLA_MTU, mtu)
    if address:
        payload += attribute(_IFLA_ADDRESS, _mac(address))
    if kind == "macvlan":
        data = u32(_IFLA_MACVLAN_MODE, mode)
    else:
        data = attribute(_IFLA_IPVLAN_MODE, struct.pack("=H", mode))
        data += attribute(_IFLA_IPVLAN_FLAGS, struct.pack("=H", flags))
    payload += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind), nested(_IFLA_INFO_DATA, data))
    rtnl.request(Message(_RTM_NEWLINK, payload, _CREATE))


def move_link(rtnl: NetlinkSocket, index: int, name: str, namespace: int, address: str = "") -> None:
    """Move a link that is down to the namespace behind a file descriptor, under another name.

    With `address` it gets that MAC. Raises OSError.
    """
    if address:
        payload = _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attribute(_IFLA_ADDRESS, _mac(address))
        rtnl.request(Message(_RTM_NEWLINK, payload))
    payload = _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0) + text(_IFLA_IFNAME, name)
    rtnl.request(Message(_RTM_NEWLINK, payload + u32(_IFLA_NET_NS_FD, namespace)))


def delete_link(rtnl: NetlinkSocket, name: str) -> bool:
    """Delete a link by name, and a veth's peer with it; False if there is none."""
    try:
        rtnl.request(Message(_RTM_DELLINK, _ifinfo() + text(_IFLA_IFNAME, name)))
    except OSError as exc:
        if exc.errno == errno.ENODEV:
            return False
        raise
    return True


def set_link_up(rtnl: NetlinkSocket, index: int, *, up: bool = True) -> None:
    """Set a link up or down."""
    payload = _IFINFO.pack(socket.AF_UNSPEC, 0, index, IFF_UP if up else 0, IFF_UP)
    rtnl.request(Message(_RTM_NEWLINK, payload))


def set_master(rtnl: NetlinkSocket, index: int, master: int) -> None:
    """Put a link on a bridge; `master` 0 takes it off."""
    payload = _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0) + u32(_IFLA_MASTER, master)
    rtnl.request(Message(_RTM_NEWLINK, payload))


def set_bridge_port(rtnl: NetlinkSocket, index: int, *, hairpin: bool, isolated: bool) -> None:
    """Set flags of a bridge port (bridge(8)): `hairpin` lets frames leave where they came in, `isolated`
    keeps the port from reaching other isolated ports of its bridge."""
    payload = _IFINFO.pack(socket.AF_BRIDGE, 0, index, 0, 0)
    payload += nested(_IFLA_PROTINFO, u8(_IFLA_BRPORT_MODE, hairpin), u8(_IFLA_BRPORT_ISOLATED, isolated))
    rtnl.request(Message(_RTM_SETLINK, payload))


def link_by_name(rtnl: NetlinkSocket, name: str) -> Link | None:
    """The link of that name, or None."""
    try:
        return _link(rtnl.get(Message(_RTM_GETLINK, _ifinfo() + text(_IFLA_IFNAME, name))))
    except OSError as exc:
        if exc.errno == errno.ENODEV:
            return None
        raise


def is_in_view(rtnl: NetlinkSocket, name: str) -> bool:
    """Whether there is a link of that name (SIOCGIFINDEX, netdevice(7)). Raises OSError.

    Unlike a message it does not wait for whoever is changing links just now, nor for who deletes this one:
    the kernel takes it from view at once, and is done with it some 20 ms later.
    """
    try:
        fcntl.ioctl(rtnl.fileno(), _SIOCGIFINDEX, _IFREQ.pack(name.encode()))
    except OSError as exc:
        if exc.errno == errno.ENODEV:
            return False
        raise
    return True


def links(rtnl: NetlinkSocket) -> list[Link]:
    """All links of the namespace; its cost grows with their number."""
    return [_link(answer) for answer in rtnl.dump(Message(_RTM_GETLINK, _ifinfo()))]


def add_address(rtnl: NetlinkSocket, index: int, address: Interface) -> None:
    """Give the link an address. IPv6 skips duplicate detection, so that it is usable at once.

    Raises OSError (EEXIST).
    """
    packed = address.ip.packed
    payload = _IFADDR.pack(_family(address), address.network.prefixlen, 0, 0, index)
    payload += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if isinstance(address, IPv4Interface):
        if address.network.prefixlen < 31:
            payload += attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
    else:
        payload += u32(_IFA_FLAGS, _IFA_F_NODAD)
    rtnl.request(Message(_RTM_NEWADDR, payload, _CREATE))


def delete_address(rtnl: NetlinkSocket, index: int, address: Interface) -> None:
    """Take an address from the link. Raises OSError (EADDRNOTAVAIL)."""
    payload = _IFADDR.pack(_family(address), address.network.prefixlen, 0, 0, index)
    rtnl.request(Message(_RTM_DELADDR, payload + attribute(_IFA_LOCAL, address.ip.packed)))


def addresses(rtnl: NetlinkSocket, index: int) -> list[Interface]:
    """The addresses of one link, link-local ones included."""
    found: list[Interface] = []
    for answer in rtnl.dump(Message(_RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0))):
        _, length, _, _, owner = _IFADDR.unpack_from(answer)
        if owner != index:
            continue
        values = attributes(answer, _IFADDR.size)
        address = ip_address(values.get(_IFA_LOCAL) or values[_IFA_ADDRESS])
        found.append(
            IPv4Interface((address, length)) if address.version == 4 else IPv6Interface((address, length))
        )
    return found


def set_default_route(rtnl: NetlinkSocket, index: int, gateway: str = "", version: int = 4) -> None:
    """Send what has no other route to `gateway`, in place of a default route there was.

    Without a gateway what is of IP `version` leaves by the link as it is.
    """
    via = ip_address(gateway) if gateway else None
    message = _default_route(via.version if via else version, index)
    if via:
        message += attribute(_RTA_GATEWAY, via.packed)
    rtnl.request(Message(_RTM_NEWROUTE, message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE))


def add_route(rtnl: NetlinkSocket, index: int, destination: IPNetwork, gateway: str = "") -> None:
    """Route a destination by a link, and a gateway if there is one. Raises OSError (EEXIST)."""
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    scope = _RT_SCOPE_UNIVERSE if gateway or destination.version == 6 else _RT_SCOPE_LINK
    header = _RTMSG.pack(
        family, destination.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0
    )
    message = header + attribute(_RTA_DST, destination.network_address.packed) + u32(_RTA_OIF, index)
    if gateway:
        message += attribute(_RTA_GATEWAY, ip_address(gateway).packed)
    rtnl.request(Message(_RTM_NEWROUTE, message, _CREATE))


def delete_default_route(rtnl: NetlinkSocket, index: int, version: int) -> None:
    """Remove the default route of IP `version` (4 or 6) over a link, if there is one."""
    try:
        rtnl.request(Message(_RTM_DELROUTE, _default_route(version, index)))
    except OSError as exc:
        if exc.errno not in (errno.ESRCH, errno.ENODEV):
            raise


def routed_networks(rtnl: NetlinkSocket) -> list[IPNetwork]:
    """The destinations of the main table's routes, the default route left out."""
    found: list[IPNetwork] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for answer in rtnl.dump(Message(_RTM_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))):
            header = _RTMSG.unpack_from(answer)
            values = attributes(answer, _RTMSG.size)
            table = struct.unpack("=I", values[_RTA_TABLE])[0] if _RTA_TABLE in values else header[4]
            if table == _RT_TABLE_MAIN and _RTA_DST in values:
                found.append(ip_network((values[_RTA_DST], header[1])))
    return found


def _ifinfo(flags: int = 0) -> bytes:
    return _IFINFO.pack(socket.AF_UNSPEC, 0, 0, flags, flags)


def _mac(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", "").replace("-", ""))


def _family(address: Interface) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _default_route(version: int, index: int) -> bytes:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    header = _RTMSG.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0)
    return header + u32(_RTA_OIF, index)


def _link(answer: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(answer)
    values = attributes(answer, _IFINFO.size)
    info = attributes(values.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=values[_IFLA_IFNAME].rstrip(b"\0").decode(),
        flags=flags,
        address=values.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=int.from_bytes(values.get(_IFLA_MTU, b""), sys.byteorder),
        kind=info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        master=_index(values, _IFLA_MASTER),
        peer=_index(values, _IFLA_LINK),
    )


def _index(values: dict[int, bytes], attribute: int) -> int:
    found: int = struct.unpack("=I", values[attribute])[0] if attribute in values else 0
    return found
