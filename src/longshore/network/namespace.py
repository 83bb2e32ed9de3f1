"""What every sandbox's network namespace starts with."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from longshore.errors import InvalidParameter
from longshore.linux import rtnetlink
from longshore.linux.netlink import NetlinkSocket

_LOOPBACK = 1


def set_up_namespace(sysctls: Mapping[str, str]) -> NetlinkSocket:
    """Set loopback up and sysctls, in the calling thread's namespace; returns a socket that works there.

    Raises OSError, InvalidParameter for a sysctl that is not of a network namespace.
    """
    # Interfaces get IPv6 from networks that have it; without this each would get a link-local address.
    for name, value in {"net.ipv6.conf.default.disable_ipv6": "1", **sysctls}.items():
        path = Path("/proc/sys", *name.split("."))
        if not name.startswith("net.") or ".." in path.parts or "/" in name:
            raise InvalidParameter(f"sysctl {name} is not of a network namespace")
        with suppress(FileNotFoundError):
            path.write_text(value)
    rtnl = NetlinkSocket()
    try:
        rtnetlink.set_link_up(rtnl, _LOOPBACK)
    except BaseException:
        rtnl.close()
        raise
    return rtnl
