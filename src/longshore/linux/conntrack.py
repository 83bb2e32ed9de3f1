"""Connection tracking (nfnetlink_conntrack.h): forgetting flows that were tracked under older rules."""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from ipaddress import ip_address

from longshore.linux.netlink import NETLINK_NETFILTER, Message, NetlinkSocket, attributes, nested

_CTNETLINK = 1 << 8
_GET, _DELETE = _CTNETLINK | 1, _CTNETLINK | 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY = 1, 2
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3


def forget_udp_flows(netfilter: NetlinkSocket, ports: Collection[int]) -> int:
    """Delete every UDP flow to one of these destination ports; returns how many there were.

    UDP clients that keep sending keep an old flow, and with it the translation it began with, alive for ever.
    Cost grows with the number of flows tracked. Raises OSError.
    """

    def is_to_port(flow: Mapping[int, bytes]) -> bool:
        protocol = attributes(attributes(flow.get(_CTA_TUPLE_ORIG, b"")).get(_CTA_TUPLE_PROTO, b""))
        if protocol.get(_CTA_PROTO_NUM) != bytes([socket.IPPROTO_UDP]):
            return False
        return int.from_bytes(protocol.get(_CTA_PROTO_DST_PORT, b""), "big") in ports

    return _forget(netfilter, (socket.AF_INET, socket.AF_INET6), is_to_port)


def forget_flows_of(netfilter: NetlinkSocket, addresses: Collection[str]) -> int:
    """Delete every flow from or to one of these addresses, translated or not; returns how many there were.

    Whoever is given an address next must not get answers that were meant for the one who had it.
    Cost grows with the number of flows tracked. Raises OSError.
    """
    wanted = {ip_address(address).packed for address in addresses}
    families = {socket.AF_INET if len(one) == 4 else socket.AF_INET6 for one in wanted}

    def is_of_address(flow: Mapping[int, bytes]) -> bool:
        for direction in (_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY):
            ends = attributes(attributes(flow.get(direction, b"")).get(_CTA_TUPLE_IP, b""))
            if not wanted.isdisjoint(ends.values()):
                return True
        return False

    return _forget(netfilter, families, is_of_address)


_PAUSE = 0.004
"""Seconds before a walk."""


class FlowSweep:
    """Forgets the flows of addresses, those of several callers with one walk over all flows of the machine.

    A walk takes some 10 ms where memory is plenty, however few flows there are.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._walking = threading.Lock()
        self._waiting: set[str] = set()

    def forget(self, addresses: Collection[str]) -> None:
        """As `forget_flows_of`; a walk that began after the call is as good as one's own. Raises OSError."""
        with self._guard:
            self._waiting.update(addresses)
        # For others to join, and for what else is to be done: the kernel does nothing beside it on that core.
        time.sleep(_PAUSE)
        with self._walking:
            with self._guard:
                if self._waiting.isdisjoint(addresses):
                    return
                wanted, self._waiting = self._waiting, set()
            try:
                with closing(NetlinkSocket(NETLINK_NETFILTER)) as netfilter:
                    forget_flows_of(netfilter, wanted)
            except BaseException:
                with self._guard:
                    self._waiting |= wanted  # The others that asked try for themselves.
                raise


def _forget(
    netfilter: NetlinkSocket, families: Iterable[int], chosen: Callable[[Mapping[int, bytes]], bool]
) -> int:
    found = 0
    for family in families:
        header = struct.pack("!BBH", family, 0, 0)
        for answer in netfilter.dump(Message(_GET, header)):
            flow = attributes(answer, len(header))
            if not chosen(flow):
                continue
            try:
                original = nested(_CTA_TUPLE_ORIG, flow[_CTA_TUPLE_ORIG])
                netfilter.request(Message(_DELETE, header + original))
                found += 1
            except OSError as exc:
                if exc.errno != errno.ENOENT:
                    raise
    return found
