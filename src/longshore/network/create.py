"""How a network comes to its settings: validation as Docker does it, subnets and gateways chosen."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Interface, ip_interface

from longshore.errors import Forbidden, InvalidParameter, NotFound
from longshore.linux import rtnetlink
from longshore.linux.netlink import NetlinkSocket
from longshore.network.config import NetworkConfig
from longshore.network.drivers import DriverRegistry
from longshore.network.ipam import (
    AddressSpace,
    IPAMPool,
    IPNetwork,
    overlap,
    parse_address,
    parse_network,
)
from longshore.network.options import (
    BRIDGE_NAME,
    DEFAULT_BRIDGE,
    DEFAULT_GATEWAY,
    HOST_BINDING,
    ICC,
    MASQUERADE,
    MTU,
    check_link_name,
)
from longshore.network.record import NetworkRecord
from longshore.network.resolvconf import host_resolv_conf
from longshore.types.timestamp import now

PREDEFINED = ("bridge", "host", "none")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def default_records(config: NetworkConfig, stored: Sequence[NetworkRecord]) -> list[NetworkRecord]:
    """The predefined networks, with the ids they had; the bridge's settings are today's flags."""
    known = {record.name: record for record in stored if record.name in PREDEFINED}
    records = [
        known.get("none") or _record("none", "null"),
        known.get("host") or _record("host", "host"),
    ]
    if config.bridge_name != "none":
        check_link_name(config.bridge_name)
        old = known.get("bridge")
        bridge = _record("bridge", "bridge")
        if old:
            bridge.id, bridge.created = old.id, old.created
            bridge.link_made = old.link_made and old.link == config.bridge_name
        bridge.link = config.bridge_name
        bridge.enable_ipv6 = config.ipv6
        bridge.pools = [_default_pool(config, old)]
        if config.ipv6:
            bridge.pools.append(_default_pool_ipv6(config, old))
        bridge.options = {
            DEFAULT_BRIDGE: "true",
            ICC: _go(config.icc),
            MASQUERADE: _go(config.ip_masq),
            HOST_BINDING: config.default_ip,
            BRIDGE_NAME: config.bridge_name,
            MTU: str(config.mtu),
        }
        records.append(bridge)
    return records


def user_record(
    name: str,
    driver: str,
    *,
    options: dict[str, str],
    pools: list[IPAMPool],
    ipam_options: dict[str, str],
    internal: bool,
    attachable: bool,
    enable_ipv4: bool,
    enable_ipv6: bool,
    labels: dict[str, str],
    ipam_driver: str,
    scope: str,
    known: DriverRegistry,
) -> NetworkRecord:
    """A user's network, checked as far as that needs no look at the machine.

    Raises InvalidParameter, Forbidden, NotFound with Docker's messages.
    """
    if not name.strip():
        raise InvalidParameter("invalid network name: name is empty")
    if not _NAME.fullmatch(name):
        raise InvalidParameter(f"invalid network name: {name}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if driver in ("host", "null", "none"):
        shown = "null" if driver == "none" else driver
        raise Forbidden(f'only one instance of "{shown}" network is allowed')
    behaviour = known.find(driver)
    if behaviour is None:
        raise NotFound(f"could not find plugin {driver} in v1 plugin registry: plugin not found")
    if not enable_ipv4 and not enable_ipv6:
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    record = _record(name, driver)
    record.options, record.labels, record.ipam_options = options, labels, ipam_options
    record.internal, record.attachable = internal, attachable
    record.ipam_driver, record.scope = ipam_driver, scope
    record.enable_ipv4, record.enable_ipv6 = enable_ipv4, enable_ipv6
    record.pools = _pools(record, pools)
    behaviour.prepare(record)
    return record


def config_record(
    name: str,
    *,
    options: dict[str, str],
    pools: list[IPAMPool],
    ipam_options: dict[str, str],
    operator_fields: bool,
    enable_ipv4: bool,
    enable_ipv6: bool,
    labels: dict[str, str],
    ipam_driver: str,
) -> NetworkRecord:
    """A network of settings alone, for others to take them. Raises InvalidParameter, Forbidden."""
    if not _NAME.fullmatch(name):
        raise InvalidParameter(f"invalid network name: {name}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if operator_fields:
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator fields like "
            "[ ingress | internal | attachable | scope ] are not supported."
        )
    record = _record(name, "null")
    record.config_only, record.ipam_driver = True, ipam_driver
    record.options, record.labels, record.ipam_options = options, labels, ipam_options
    record.enable_ipv4, record.enable_ipv6 = enable_ipv4, enable_ipv6
    record.pools = [pool for pool in _pools(record, pools) if pool.subnet]
    return record


def settings_of(records: Iterable[NetworkRecord], name: str, config_only: bool, given: bool) -> NetworkRecord:
    """The configuration network that a new network takes its settings from, in place of any `given`.

    Raises Forbidden, NotFound with Docker's messages.
    """
    if config_only:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    if given:
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a "
            "configuration network"
        )
    for record in records:
        if record.config_only and name in (record.name, record.id):
            return record
    raise NotFound(f'configuration network "{name}" does not exist')


def resolve_record(
    record: NetworkRecord, space: AddressSpace, rtnl: NetlinkSocket, reserved: list[str]
) -> None:
    """Choose the subnets that are still open and take them all; `reserved` lists those taken so far.

    Blocks. Raises Forbidden if one overlaps another network's, InvalidParameter if there are none left.
    """
    if record.options.get(DEFAULT_BRIDGE) == "true":
        _adopt_addresses(record, rtnl)
    avoid = in_use(rtnl) if record.scope == "local" and not all(pool.subnet for pool in record.pools) else []
    for pool in record.pools:
        if pool.subnet:
            space.reserve(parse_network(pool.subnet))
        elif record.version_of(pool) == 6:
            chosen = space.allocate(6, avoid) if space.offers(6) else _unique_local(record.id)
            pool.subnet, pool.chosen = str(chosen), True
            if not space.offers(6):
                space.reserve(chosen)
        else:
            pool.subnet, pool.chosen = str(space.allocate(4, avoid)), True
        reserved.append(pool.subnet)


def _record(name: str, driver: str) -> NetworkRecord:
    return NetworkRecord(id=secrets.token_hex(32), name=name, driver=driver, created=now())


def _pools(record: NetworkRecord, asked: Sequence[IPAMPool]) -> list[IPAMPool]:
    """The pools as asked for, their texts made canonical, and an empty one for what is to be chosen."""
    four: list[IPAMPool] = []
    six: list[IPAMPool] = []
    for pool in asked:
        if not pool.subnet:
            if pool.gateway or pool.ip_range or pool.aux_addresses:
                raise InvalidParameter(
                    "invalid network config:\ninvalid subnet : invalid CIDR block notation"
                )
            continue
        try:
            subnet = parse_network(pool.subnet)
        except InvalidParameter:
            raise InvalidParameter(
                f"invalid network config:\ninvalid subnet {pool.subnet}: invalid CIDR block notation"
            ) from None
        (four if subnet.version == 4 else six).append(_checked(subnet, pool))
    if record.enable_ipv4 and not four:
        four.append(IPAMPool())
    if record.enable_ipv6 and not six:
        six.append(IPAMPool())
    return [*(four if record.enable_ipv4 else []), *(six if record.enable_ipv6 else [])]


def _checked(subnet: IPNetwork, pool: IPAMPool) -> IPAMPool:
    if str(subnet) != pool.subnet.strip():
        raise InvalidParameter(
            f"invalid network config:\ninvalid subnet {pool.subnet}: it should be {subnet}"
        )
    if pool.ip_range:
        part = parse_network(pool.ip_range)
        if part.version != subnet.version or not (
            int(subnet.network_address) <= int(part.network_address)
            and int(part.broadcast_address) <= int(subnet.broadcast_address)
        ):
            raise InvalidParameter(
                f"invalid network config:\ninvalid ip-range {pool.ip_range}: "
                f"parent subnet {subnet} doesn't contain ip-range"
            )
    for kind, text in [
        ("gateway", pool.gateway),
        *(("auxiliary address", text) for text in pool.aux_addresses.values()),
    ]:
        if text and parse_address(text) not in subnet:
            raise InvalidParameter(
                f"invalid network config:\ninvalid {kind} {text}: parent subnet {subnet} doesn't contain it"
            )
    return IPAMPool(
        subnet=str(subnet),
        ip_range=str(parse_network(pool.ip_range)) if pool.ip_range else "",
        gateway=str(parse_address(pool.gateway)) if pool.gateway else "",
        aux_addresses=dict(pool.aux_addresses),
    )


def _default_pool(config: NetworkConfig, old: NetworkRecord | None) -> IPAMPool:
    pool = IPAMPool(ip_range=config.fixed_cidr or "")
    if config.default_gateway:
        pool.aux_addresses = {DEFAULT_GATEWAY[4]: str(parse_address(config.default_gateway))}
    if config.bip:
        try:
            address = ip_interface(config.bip)
        except ValueError:
            raise InvalidParameter(f"invalid CIDR address: {config.bip}") from None
        pool.subnet, pool.gateway = str(address.network), str(address.ip)
    elif old and old.link == config.bridge_name and old.pools:
        # Containers that still run have addresses of it.
        pool.subnet, pool.gateway = old.pools[0].subnet, old.pools[0].gateway
    elif config.fixed_cidr:
        pool.subnet = str(parse_network(config.fixed_cidr))
    return pool


def _default_pool_ipv6(config: NetworkConfig, old: NetworkRecord | None) -> IPAMPool:
    pool = IPAMPool()
    if config.default_gateway_v6:
        pool.aux_addresses = {DEFAULT_GATEWAY[6]: str(parse_address(config.default_gateway_v6))}
    if config.fixed_cidr_v6:
        part = parse_network(config.fixed_cidr_v6)
        link_local = parse_network("fe80::/64")
        if part.version != 6 or part.is_multicast:
            raise InvalidParameter(
                f"invalid fixed-cidr-v6: '{config.fixed_cidr_v6}' is not a valid IPv6 subnet"
            )
        if part != link_local and overlap(part, link_local):
            raise InvalidParameter(
                f"invalid fixed-cidr-v6: '{config.fixed_cidr_v6}' clashes with the Link-Local prefix "
                "'fe80::/64'"
            )
    if config.bip6:
        try:
            address = ip_interface(config.bip6)
        except ValueError:
            raise InvalidParameter(f"invalid CIDR address: {config.bip6}") from None
        pool.subnet, pool.gateway = str(address.network), str(address.ip)
        pool.ip_range = config.fixed_cidr_v6 or ""
    elif config.fixed_cidr_v6:
        pool.subnet = str(parse_network(config.fixed_cidr_v6))
    elif old and old.link == config.bridge_name:
        known = next((one for one in old.pools if ":" in one.subnet), None)
        if known:
            pool.subnet, pool.gateway = known.subnet, known.gateway
    return pool


def _adopt_addresses(record: NetworkRecord, rtnl: NetlinkSocket) -> None:
    """A bridge that is there already keeps its address, unless the flags name another."""
    link = rtnetlink.link_by_name(rtnl, record.link)
    pool = record.pools[0]
    if link is None:
        return
    present = [one for one in rtnetlink.addresses(rtnl, link.index) if isinstance(one, IPv4Interface)]
    if not present:
        return
    if not pool.gateway:
        pool.subnet, pool.gateway = str(present[0].network), str(present[0].ip)
        return
    for address in present:
        if address.with_prefixlen != f"{pool.gateway}/{pool.subnet.partition('/')[2]}":
            rtnetlink.delete_address(rtnl, link.index, address)


def in_use(rtnl: NetlinkSocket) -> list[IPNetwork]:
    """What the machine has routes to, and its name servers."""
    found: list[IPNetwork] = list(rtnetlink.routed_networks(rtnl))
    for server in host_resolv_conf().nameservers:
        with suppress(InvalidParameter):
            found.append(parse_network(server.partition("%")[0]))
    return found


def _unique_local(id: str) -> IPNetwork:
    """A /64 of unique local addresses (RFC 4193), the same for the same network."""
    digest = hashlib.sha256(id.encode()).digest()
    return parse_network(f"{(bytes([0xFD]) + digest[:7]).hex(':', 2)}::/64")


def _go(value: bool) -> str:
    return "true" if value else "false"
