"""A network as it is stored."""

from __future__ import annotations

import msgspec

from longshore.network.ipam import IPAMPool, parse_network
from longshore.network.ipam_driver import BUILT_IN


class NetworkRecord(msgspec.Struct, kw_only=True):
    """A network as it is stored. `created` is RFC 3339."""

    id: str
    name: str
    driver: str
    created: str
    options: dict[str, str] = {}
    pools: list[IPAMPool] = []
    ipam_options: dict[str, str] = {}
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    labels: dict[str, str] = {}
    config_only: bool = False
    """Only settings, for others to take: nothing is made of it."""
    config_from: str = ""
    """Name of the network whose settings were taken."""
    scope: str = "local"
    """`global` if its driver, a plug-in, says that it spans machines."""
    ipam_driver: str = BUILT_IN
    ipam_replay: bool | None = None
    """Whether the IPAM driver forgets, so that after a restart everything is requested again; None if it was
    not asked."""
    address_space: str = ""
    """Of the IPAM driver."""
    in_delete: bool = False
    """Whether its removal has begun, to be finished after a crash."""
    no_gateway: list[int] = []
    """IP versions that its driver wants no gateway of."""
    link: str = ""
    """The bridge's link."""
    parent: str = ""
    """The link that macvlan and ipvlan interfaces stand on."""
    link_made: bool = False
    """Whether link or parent is ours to delete: one that was there before is not."""
    admitted: bool = False
    """Whether other people's firewalls had to be asked to let it through."""

    def version_of(self, pool: IPAMPool) -> int:
        """The IP version of one of its pools, be it one that is still to be chosen."""
        if pool.subnet:
            return parse_network(pool.subnet).version
        sixes = [one for one in self.pools if ":" in one.subnet]
        return 6 if self.enable_ipv6 and pool is self.pools[-1] and not sixes else 4
