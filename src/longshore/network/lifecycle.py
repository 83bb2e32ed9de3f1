"""How a network is made of its record, and unmade."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING

from longshore.errors import EngineError, Forbidden, InvalidParameter, NotFound, System
from longshore.network.create import in_use, resolve_record
from longshore.network.ipam import overlap, parse_network
from longshore.network.ipam_driver import BUILT_IN, IpamDriver, NullIpam, RemoteIpam
from longshore.network.managed import release_pools, request_pools
from longshore.network.network import Network
from longshore.network.record import NetworkRecord
from longshore.network.threads import in_spare_thread, in_thread

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController

log = logging.getLogger(__name__)


async def take_up(controller: NetworkController, record: NetworkRecord, *, new: bool = False) -> Network:
    """Make a network of a record: subnets and addresses reserved, everything on the machine made.

    Raises EngineError, OSError; of a new network nothing is left then.
    """
    drivers = controller.drivers
    driver = drivers.find(record.driver) or (None if new else drivers.remote(record.driver))
    if driver is None:
        raise NotFound(f"could not find plugin {record.driver} in v1 plugin registry: plugin not found")
    network = Network(record, driver, _ipam_driver(controller, record))
    reserved: list[str] = []
    requested = False
    try:
        if driver.addressed:
            if new:
                await in_spare_thread(driver.consult, record)
            if network.ipam is None:
                await in_thread(
                    resolve_record, record, controller.space(record.scope), controller.machine.rtnl, reserved
                )
                network.open_pools()
            else:
                requested = new
                await in_spare_thread(_request, controller, network, new)
        async with _machine_of(controller, network):
            await network.in_thread(_create, controller, network, new)
    except BaseException as exc:
        for subnet in reserved:
            controller.space(record.scope).release(parse_network(subnet))
        if requested and network.ipam is not None and any(pool.pool_id for pool in record.pools):
            await in_spare_thread(release_pools, network.ipam, record)
        if isinstance(exc, OSError):
            link = record.link or record.parent
            raise System(f"cannot create network {record.id} ({link}): {exc}") from exc
        raise
    controller.networks_by_id[network.id] = network
    return network


async def take_down(controller: NetworkController, network: Network) -> None:
    """Unmake a network. Raises OSError, EngineError while it stands."""
    network.removing = True
    try:
        async with _machine_of(controller, network):
            await network.in_thread(network.behaviour.delete, network)
        await in_spare_thread(_forget, controller, network)
    except BaseException:
        network.removing = False
        raise
    del controller.networks_by_id[network.id]
    if network.ipam is None:
        for pool in network.pools:
            controller.space(network.scope).release(parse_network(pool.subnet))


async def finish_removal(controller: NetworkController, record: NetworkRecord) -> None:
    """Remove what is left of a network whose removal a crash has cut off."""
    driver = controller.drivers.find(record.driver) or controller.drivers.remote(record.driver)
    if driver is not None:
        network = Network(record, driver, _ipam_driver(controller, record))
        await in_spare_thread(driver.delete, network)
        await in_spare_thread(_forget, controller, network)


def _machine_of(controller: NetworkController, network: Network) -> AbstractAsyncContextManager[object]:
    """Held while the driver changes the machine; a plug-in, which may hang, holds nobody else up."""
    return nullcontext() if network.behaviour.remote else controller.lock


def _ipam_driver(controller: NetworkController, record: NetworkRecord) -> IpamDriver | None:
    """Who manages the addresses; None for the network itself. Raises NotFound."""
    name, lookup = record.ipam_driver, controller.config.plugin
    if name in ("", BUILT_IN) or record.config_only:
        return None
    if name == "null":
        return NullIpam()
    if lookup is None:
        raise NotFound(f"could not find plugin {name} in v1 plugin registry: plugin not found")
    return controller.ipam_drivers.setdefault(name, RemoteIpam(name, lambda: lookup(name)))


# What follows blocks, and runs in threads.


def _request(controller: NetworkController, network: Network, new: bool) -> None:
    """Take the pools of a network whose addresses are managed elsewhere, or take them again."""
    record, ipam = network.record, network.ipam
    assert ipam is not None
    if record.ipam_replay is None:
        replay = ipam.needs_replay()
        record.ipam_replay = bool(replay) if new else replay
    if not new and not record.ipam_replay:
        return
    try:
        request_pools(
            ipam,
            record,
            lambda version: network.behaviour.needs_gateway(record, version),
            [*in_use(controller.machine.rtnl), *controller.space("local").taken()] if new else [],
        )
    except EngineError as exc:
        if new:
            for pool in record.pools:
                pool.pool_id = ""  # What there was of them is given back.
            raise
        log.warning("network %s: its address pools cannot be had again: %s", record.name, exc.message)
        return
    if new and not network.behaviour.remote:
        _check_pools(controller, record)


def _check_pools(controller: NetworkController, record: NetworkRecord) -> None:
    """Bridges stand on the machine itself, which must tell their subnets apart."""
    for pool in record.pools:
        subnet = parse_network(pool.subnet)
        if not subnet.prefixlen:
            raise InvalidParameter(f"ipv{subnet.version} pool is empty")
        for other in controller.records():
            if other.id == record.id or not (record.link and other.link):
                continue
            if any(overlap(subnet, parse_network(one.subnet)) for one in other.pools if one.subnet):
                raise Forbidden(
                    f"cannot create network {record.id} ({record.link}): conflicts with network {other.id} "
                    f"({other.link}): networks have overlapping IPv{subnet.version}"
                )


def _create(controller: NetworkController, network: Network, new: bool) -> None:
    store = controller.store
    with ExitStack() as undo:
        if new:
            undo.callback(store.delete, "network", network.id)
        store.save("network", network.id, network.record, durable=True)
        before = network.record.link_made, network.record.admitted
        network.behaviour.create(network)
        if new:
            undo.callback(network.behaviour.delete, network)
        if (network.record.link_made, network.record.admitted) != before:
            store.save("network", network.id, network.record, durable=True)
        if new:
            controller.database.add([network.record])
        undo.pop_all()


def _forget(controller: NetworkController, network: Network) -> None:
    if network.ipam is not None:
        # Noted first: its pools must not be given back by half, nor twice.
        network.record.in_delete = True
        controller.store.save("network", network.id, network.record, durable=True)
        release_pools(network.ipam, network.record)
    controller.store.delete("network", network.id)
    controller.database.remove(network.id)
