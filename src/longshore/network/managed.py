"""Networks whose addresses an IPAM driver manages: what is requested of it, and what is given back.

All of it blocks. Whatever fails gives back what it had so far; what cannot be given back, since the plug-in
is gone or refuses, is logged, as there is nobody else to tell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from ipaddress import ip_address, ip_interface

from longshore.errors import EngineError, InvalidParameter, System
from longshore.network.endpoint import Endpoint
from longshore.network.ipam import IPAMPool, IPNetwork, overlap, parse_network
from longshore.network.ipam_driver import GATEWAY, MAC_ADDRESS, REQUEST_TYPE, IpamDriver
from longshore.network.record import NetworkRecord

_ATTEMPTS = 256
"""Pools that are asked for until there is one that is not in use on this machine."""

log = logging.getLogger(__name__)


def request_pools(
    ipam: IpamDriver,
    record: NetworkRecord,
    needs_gateway: Callable[[int], bool],
    avoid: Sequence[IPNetwork],
) -> None:
    """Take a network's pools, its gateways and auxiliary addresses, and note in the record what they are.

    Of pools that nobody named, one that overlaps any of `avoid` is given back. Raises EngineError.
    """
    space = record.address_space = ipam.address_space(record.scope)
    versions = [record.version_of(pool) for pool in record.pools]
    with ExitStack() as undo:
        for pool, version in zip(record.pools, versions, strict=True):
            _request_pool(ipam, record, space, pool, version, avoid)
            undo.callback(_quietly, ipam.release_pool, pool.pool_id)
            _request_gateway(ipam, pool, needs_gateway(version), undo)
            for name, address in pool.aux_addresses.items():
                if address == pool.gateway:
                    continue
                try:
                    ipam.request_address(pool.pool_id, address, None)
                except EngineError as exc:
                    raise System(
                        f"failed to allocate secondary ip address ({name}:{address}): {exc.message}"
                    ) from exc
                undo.callback(_quietly, ipam.release_address, pool.pool_id, address)
        undo.pop_all()


def release_pools(ipam: IpamDriver, record: NetworkRecord) -> None:
    """Give back everything that `request_pools` took."""
    for pool in record.pools:
        own = [pool.gateway, *(one for one in pool.aux_addresses.values() if one != pool.gateway)]
        for address in filter(None, own):
            _quietly(ipam.release_address, pool.pool_id, address)
        _quietly(ipam.release_pool, pool.pool_id)


def request_addresses(
    ipam: IpamDriver, record: NetworkRecord, endpoint: Endpoint, wanted: Mapping[int, str]
) -> None:
    """Give an endpoint its addresses, by IP version those that are wanted if any are. Raises EngineError.

    What the endpoint then holds `release_addresses` gives back, after a failure too.
    """
    for version, enabled in ((4, record.enable_ipv4), (6, record.enable_ipv6)):
        pools = [pool for pool in record.pools if record.version_of(pool) == version]
        if enabled and pools:
            _request_address(ipam, pools, endpoint, version, wanted.get(version, ""))


def replay_addresses(ipam: IpamDriver, record: NetworkRecord, endpoint: Endpoint) -> list[str]:
    """Request again what a running endpoint holds; returns what could not be had again."""
    problems = []
    for address, held in list(endpoint.held.items()):
        pools = [pool for pool in record.pools if ip_address(address) in parse_network(pool.subnet)]
        endpoint.held[address] = pools[0].pool_id if pools else held
        try:
            ipam.request_address(endpoint.held[address], address, _options(endpoint, ipam))
        except EngineError as exc:
            problems.append(f"{endpoint.name}: {address}: {exc.message}")
    return problems


def release_addresses(ipam: IpamDriver, endpoint: Endpoint) -> None:
    """Give back what an endpoint holds; nothing happens the second time."""
    while endpoint.held:
        address, pool_id = endpoint.held.popitem()
        _quietly(ipam.release_address, pool_id, address)


def _request_pool(
    ipam: IpamDriver,
    record: NetworkRecord,
    space: str,
    pool: IPAMPool,
    version: int,
    avoid: Sequence[IPNetwork],
) -> None:
    refused: list[str] = []
    try:
        for _ in range(_ATTEMPTS):
            pool.pool_id, subnet, data = ipam.request_pool(
                space, pool.subnet, pool.ip_range, record.ipam_options, version
            )
            anything_goes = pool.subnet or record.scope == "global" or not subnet.prefixlen
            if anything_goes or not any(overlap(subnet, other) for other in avoid):
                break
            # Held until there is another, or it would be offered again.
            refused.append(pool.pool_id)
        else:
            raise System("ipam driver offers no pool that is not in use on this machine")
    finally:
        for id in refused:
            _quietly(ipam.release_pool, id)
    if pool.subnet and parse_network(pool.subnet) != subnet:
        log.warning("ipam driver gave %s where %s was asked for", subnet, pool.subnet)
    pool.chosen = pool.chosen or not pool.subnet
    pool.subnet = str(subnet)
    if not pool.gateway and data.get(GATEWAY):
        try:
            pool.gateway = str(ip_interface(data[GATEWAY]).ip)
        except ValueError:
            _quietly(ipam.release_pool, pool.pool_id)
            raise InvalidParameter(
                f"failed to parse gateway address ({data[GATEWAY]}) returned by ipam driver"
            ) from None
        pool.gateway_given = True


def _request_gateway(ipam: IpamDriver, pool: IPAMPool, needed: bool, undo: ExitStack) -> None:
    """Unless it came with the pool."""
    if not pool.gateway_given and (pool.gateway or needed):
        try:
            given = ipam.request_address(pool.pool_id, pool.gateway, {REQUEST_TYPE: GATEWAY})
        except EngineError as exc:
            raise System(f"failed to allocate gateway ({pool.gateway}): {exc.message}") from exc
        pool.gateway = str(given.ip) if given is not None else ""
    if pool.gateway:
        undo.callback(_quietly, ipam.release_address, pool.pool_id, pool.gateway)


def _request_address(
    ipam: IpamDriver, pools: Sequence[IPAMPool], endpoint: Endpoint, version: int, wanted: str
) -> None:
    failure: EngineError | None = None
    for pool in pools:
        if wanted and ip_address(wanted) not in parse_network(pool.subnet):
            continue
        try:
            given = ipam.request_address(pool.pool_id, wanted, _options(endpoint, ipam))
        except EngineError as exc:
            failure = exc
            continue
        if given is None:
            return
        endpoint.held[str(given.ip)] = pool.pool_id
        if given.version != version:
            raise System(f"ipam driver gave {given} where an IPv{version} address was asked for")
        place = str(given.ip), given.network.prefixlen, pool.gateway
        if version == 4:
            endpoint.ipv4_address, endpoint.ipv4_prefixlen, endpoint.ipv4_gateway = place
        else:
            endpoint.ipv6_address, endpoint.ipv6_prefixlen, endpoint.ipv6_gateway = place
        return
    if failure is not None:
        raise failure


def _options(endpoint: Endpoint, ipam: IpamDriver) -> dict[str, str] | None:
    return {MAC_ADDRESS: endpoint.mac_address} if ipam.needs_mac() else None


def _quietly(release: Callable[..., None], *what: str) -> None:
    try:
        release(*what)
    except EngineError as exc:
        log.warning("ipam driver does not take %s back: %s", " ".join(what), exc.message)
