"""Connection tracking (nfnetlink_conntrack.h): forgetting flows that were tracked under older rules."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection

from longshore.linux.netlink import Message, NetlinkSocket, attributes, nested

_CTNETLINK = 1 << 8
_GET, _DELETE = _CTNETLINK | 1, _CTNETLINK | 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_PROTO = 1, 2
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3


def forget_udp_flows(netfilter: NetlinkSocket, ports: Collection[int]) -> int:
    """Delete every UDP flow to one of these destination ports; returns how many there were.

    UDP clients that keep sending keep an old flow, and with it the translation it began with, alive for ever.
    Cost grows with the number of flows tracked. Raises OSError.
    """
    found = 0
    for family in (socket.AF_INET, socket.AF_INET6):
        header = struct.pack("!BBH", family, 0, 0)
        for flow in netfilter.dump(Message(_GET, header)):
            original = attributes(flow, len(header)).get(_CTA_TUPLE_ORIG, b"")
            protocol = attributes(attributes(original).get(_CTA_TUPLE_PROTO, b""))
            if protocol.get(_CTA_PROTO_NUM) != bytes([socket.IPPROTO_UDP]):
                continue
            if int.from_bytes(protocol.get(_CTA_PROTO_DST_PORT, b""), "big") not in ports:
                continue
            try:
                netfilter.request(Message(_DELETE, header + nested(_CTA_TUPLE_ORIG, original)))
                found += 1
            except OSError as exc:
                if exc.errno != errno.ENOENT:
                    raise
    return found
