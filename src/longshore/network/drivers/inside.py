"""An endpoint's interface as it is set up inside the sandbox, whichever driver made it."""

from __future__ import annotations

import errno
import time
from contextlib import suppress
from ipaddress import ip_interface
from pathlib import Path

from longshore.errors import InvalidParameter
from longshore.linux import rtnetlink
from longshore.linux.namespaces import in_network_namespace
from longshore.linux.netlink import NetlinkSocket
from longshore.network.endpoint import Endpoint
from longshore.network.options import endpoint_sysctls

_GLANCE, _GLANCES = 0.0005, 2000
"""Seconds between looks whether an interface is gone, and how many looks there are."""


def configure(endpoint: Endpoint, namespace: Path, rtnl: NetlinkSocket) -> None:
    """Give the interface its addresses and sysctls and set it up; `rtnl` works inside. Raises OSError."""
    link = rtnetlink.link_by_name(rtnl, endpoint.interface)
    if link is None:
        raise OSError(errno.ENODEV, f"{endpoint.interface} is not in its namespace")
    settings = endpoint_sysctls(endpoint.driver_opts, endpoint.interface)
    if endpoint.ipv6_address or any(":" in address for address in endpoint.link_local_addresses):
        settings = {f"net/ipv6/conf/{endpoint.interface}/disable_ipv6": "0", **settings}
    if settings:
        in_network_namespace(namespace, lambda: _write_sysctls(settings))
    for address, length in (
        (endpoint.ipv4_address, endpoint.ipv4_prefixlen),
        (endpoint.ipv6_address, endpoint.ipv6_prefixlen),
    ):
        if address:
            rtnetlink.add_address(rtnl, link.index, ip_interface(f"{address}/{length}"))
    for address in endpoint.link_local_addresses:
        length = 64 if ":" in address else 16
        rtnetlink.add_address(rtnl, link.index, ip_interface(f"{address}/{length}"))
    rtnetlink.set_link_up(rtnl, link.index)


def _write_sysctls(settings: dict[str, str]) -> None:
    for name, value in settings.items():
        path = Path("/proc/sys", name)
        try:
            path.write_text(value)
        except FileNotFoundError:
            # Absent where the kernel has no IPv6, which then nobody needs.
            if not name.endswith("/disable_ipv6"):
                raise InvalidParameter(f"{path} is not a sysctl of this kernel") from None
        except OSError as exc:
            raise InvalidParameter(f"failed to set sysctl {name}={value}: {exc.strerror}") from exc


def wait_until_gone(endpoint: Endpoint, rtnl: NetlinkSocket) -> None:
    """Wait until an interface is gone whose other end is being deleted; delete one that has no other end.

    The kernel takes it from its namespace long before it is done with it.
    """
    if not endpoint.interface:
        return
    if not endpoint.host_interface:
        delete_interface(endpoint, rtnl)
    for _ in range(_GLANCES):
        if not rtnetlink.is_in_view(rtnl, endpoint.interface):
            return
        time.sleep(_GLANCE)


def delete_interface(endpoint: Endpoint, rtnl: NetlinkSocket) -> None:
    """Delete the interface, if it is still there."""
    if endpoint.interface:
        with suppress(OSError):
            rtnetlink.delete_link(rtnl, endpoint.interface)
