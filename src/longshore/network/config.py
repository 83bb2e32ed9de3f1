"""What the network controller needs to know of the daemon's flags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longshore.network.drivers.remote import PluginClient

DEFAULT_ADDRESS_POOLS: tuple[tuple[str, int], ...] = (
    *((f"172.{second}.0.0/16", 16) for second in range(17, 32)),
    ("192.168.0.0/16", 20),
)
"""Docker's: fifteen networks of 65,534 addresses, then sixteen of 4,094."""
GLOBAL_ADDRESS_POOLS: tuple[tuple[str, int], ...] = (("10.0.0.0/8", 24),)
"""Docker's, for networks that span machines."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Settings of one controller, named as dockerd's flags; all but the roots have Docker's defaults."""

    data_root: Path
    """Records live in `network/longshore` below."""
    exec_root: Path
    """Network namespaces are kept in `netns` below."""
    instance: str = ""
    """Told apart from other engines on the machine by this short name; part of the nftables table's name."""
    bridge_name: str = "docker0"
    """Link of the network `bridge`; "none" does without that network."""
    bip: str | None = None
    """Address and prefix length of the default bridge."""
    fixed_cidr: str | None = None
    default_gateway: str | None = None
    ipv6: bool = False
    """Whether the default bridge has IPv6 as well; without `fixed_cidr_v6` its subnet is chosen."""
    bip6: str | None = None
    fixed_cidr_v6: str | None = None
    default_gateway_v6: str | None = None
    default_network_opts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Options of new networks that do not name them, by driver."""
    mtu: int = 1500
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    default_ip: str = "0.0.0.0"
    """Host address for published ports that name none."""
    default_address_pools: list[tuple[str, int]] = field(default_factory=list)
    """(base, prefix length of a network); Docker's when empty."""
    host_gateway_ips: list[str] = field(default_factory=list)
    """What `host-gateway` in extra hosts means; the default bridge's addresses when empty."""
    dns: list[str] = field(default_factory=list)
    dns_opts: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    firewall: bool = True
    """False makes no rules at all, as `--iptables=false`; published ports are then all relayed."""
    firewall_ipv6: bool = True
    """False makes none for IPv6, as `--ip6tables=false`."""
    userland_proxy: bool = True
    """Whether what the firewall cannot translate is relayed."""
    allow_direct_routing: bool = False
    """Whether published ports are reached by containers' own addresses from everywhere."""
    warm_sandboxes: int = 4
    """Network namespaces that are kept ready; 0 makes each when it is needed."""
    live_restore: bool = False
    """Whether a dockerd that follows a crash of ours shall find the networks of what runs."""

    plugin: Callable[[str], PluginClient] | None = None
    """Finds plug-ins by name; raises NotFound. Without it there are none."""

    @property
    def table(self) -> str:
        """Name of the nftables table."""
        return f"longshore-{self.instance}" if self.instance else "longshore"

    @property
    def store(self) -> Path:
        """Directory of the records."""
        return self.data_root / "network" / "longshore"

    @property
    def database(self) -> Path:
        """What dockerd keeps of networks."""
        return self.data_root / "network/files/local-kv.db"

    @property
    def namespaces(self) -> Path:
        """Directory of the network namespaces."""
        return self.exec_root / "netns"
