"""Networks and sandboxes as the last engine left them: what is still used is taken up, the rest removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.errors import EngineError
from longshore.linux import rtnetlink
from longshore.linux.namespaces import (
    in_network_namespace,
    is_network_namespace,
    remove_network_namespace,
)
from longshore.network.create import PREDEFINED, default_records
from longshore.network.foreign import forget_forwards, forget_resolver
from longshore.network.ipam_driver import BUILT_IN
from longshore.network.lifecycle import finish_removal, take_up
from longshore.network.moving import move_ports
from longshore.network.record import NetworkRecord
from longshore.network.sandbox import Sandbox
from longshore.network.sandbox_record import SandboxRecord

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController

log = logging.getLogger(__name__)


async def restore_networks(controller: NetworkController, stored: Sequence[NetworkRecord]) -> None:
    """Take up the predefined networks and those of users. Raises EngineError, OSError for the former."""
    for record in default_records(controller.config, stored):
        await take_up(controller, record)
    users = sorted((one for one in stored if one.name not in PREDEFINED), key=lambda one: one.created)
    asking = [one for one in users if _asks_plugins(controller, one)]
    for record in users:
        if record not in asking:
            await _restore_network(controller, record)
    # At once: the start waits for one plug-in that hangs, not for each of its networks.
    await asyncio.gather(*(_restore_network(controller, record) for record in asking))
    order = {record.id: number for number, record in enumerate(users)}
    known = sorted(controller.networks_by_id.items(), key=lambda item: order.get(item[0], -1))
    controller.networks_by_id.clear()
    controller.networks_by_id.update(known)


def _asks_plugins(controller: NetworkController, record: NetworkRecord) -> bool:
    return record.ipam_driver not in ("", BUILT_IN, "null") or controller.drivers.find(record.driver) is None


async def _restore_network(controller: NetworkController, record: NetworkRecord) -> None:
    try:
        if record.in_delete:
            await finish_removal(controller, record)
        else:
            await take_up(controller, record)
    except (EngineError, OSError) as exc:
        log.error("network %s cannot be restored: %s", record.name, exc)


async def restore_sandboxes(
    controller: NetworkController,
    sandboxes: dict[str, Sandbox],
    active: Mapping[str, str],
    made_elsewhere: Callable[[str], SandboxRecord | None],
) -> None:
    """Fill `sandboxes` with those of active containers, by container id. Raises OSError."""
    kept: set[str] = set()
    left_over: list[SandboxRecord] = []
    for record in await asyncio.to_thread(controller.store.load, "sandbox", SandboxRecord):
        key = active.get(record.container_id)
        alive = key is not None and (record.options.host or is_network_namespace(Path(record.key)))
        if alive and key and _is_another(Path(key), Path(record.key)):
            alive = False  # Another daemon has started the container again since.
        known = sandboxes.get(record.container_id)
        if known is not None and known.id == record.id:
            continue  # Under the name that older versions gave it.
        if not alive or known is not None:
            left_over.append(record)
            continue
        record.endpoints = [one for one in record.endpoints if one.network_id in controller.networks_by_id]
        sandbox = sandboxes[record.container_id] = Sandbox(controller, record)
        kept.add(Path(record.key).name)
        await asyncio.to_thread(_rename_record, controller, sandbox)
        await _forget_resolver(record)
        for problem in await _take_up(controller, sandbox):
            log.warning("container %s: %s", record.container_id[:12], problem)
    for record in left_over:
        await asyncio.to_thread(_remove_left_over, controller, record)
        await _give_addresses_back(controller, record)
        await asyncio.to_thread(controller.store.delete, "sandbox", record.id)
    if controller.config.firewall:
        subnets = [pool.subnet for network in controller.networks() for pool in network.record.pools]
        await asyncio.to_thread(forget_forwards, subnets)
    for id in active.keys() - sandboxes.keys():
        if (made := await asyncio.to_thread(made_elsewhere, id)) is not None:
            kept.add(Path(made.key).name)
            sandbox = sandboxes[id] = Sandbox(controller, made)
            await asyncio.to_thread(sandbox.save)
            for problem in await _adopt(controller, sandbox):
                log.warning("container %s: %s", id[:12], problem)
    await asyncio.to_thread(_remove_namespaces, controller.config.namespaces, kept)


def _is_another(now: Path, then: Path) -> bool:
    # By their names: /var/run is a link to /run, and each daemon may have been told of either.
    return now.name != then.name and is_network_namespace(now)


async def _forget_resolver(record: SandboxRecord) -> None:
    if not record.options.host and any(endpoint.dns_names for endpoint in record.endpoints):
        with suppress(OSError):
            await asyncio.to_thread(in_network_namespace, record.key, forget_resolver)


async def _take_up(controller: NetworkController, sandbox: Sandbox) -> list[str]:
    """What the engine knows and does of a sandbox that is there; returns what could not be had again."""
    problems: list[str] = []
    for endpoint in sandbox.endpoints:
        network = controller.networks_by_id[endpoint.network_id]
        problems += await network.restore_addresses(endpoint)
        network.add_endpoint(endpoint)
        problems += controller.ports.restore(endpoint.ports)
        try:
            await network.in_thread(network.behaviour.restore, network, endpoint)
        except (EngineError, OSError) as exc:
            problems.append(f"{endpoint.name} on {network.name}: {exc}")
    try:
        await sandbox.serve_names()
    except EngineError as exc:
        problems.append(exc.message)
    return problems


async def _adopt(controller: NetworkController, sandbox: Sandbox) -> list[str]:
    """Take up a sandbox that another daemon made, its ports too; returns what could not be had."""
    await _forget_resolver(sandbox.record)
    problems = await _take_up(controller, sandbox)
    try:
        await move_ports(controller, sandbox)
    except EngineError as exc:
        problems.append(exc.message)
    return problems


def _rename_record(controller: NetworkController, sandbox: Sandbox) -> None:
    sandbox.save()
    controller.store.delete("sandbox", sandbox.container_id)


async def _give_addresses_back(controller: NetworkController, record: SandboxRecord) -> None:
    """To the plug-ins that gave them, unless they gave them to others since."""
    for endpoint in record.endpoints:
        network = controller.networks_by_id.get(endpoint.network_id)
        if network is None or network.ipam is None:
            continue
        for other in network.endpoints.values():
            for address in {*endpoint.held} & {*other.held}:
                del endpoint.held[address]
        await network.release_addresses(endpoint)


def _remove_left_over(controller: NetworkController, record: SandboxRecord) -> None:
    for endpoint in record.endpoints:
        network = controller.networks_by_id.get(endpoint.network_id)
        with suppress(OSError):
            if endpoint.host_interface:
                rtnetlink.delete_link(controller.machine.rtnl, endpoint.host_interface)
            elif network is not None:
                network.behaviour.disconnect(network, endpoint)
    if not record.options.host:
        remove_network_namespace(Path(record.key))


def _remove_namespaces(directory: Path, kept: set[str]) -> None:
    for path in directory.iterdir():
        if path.name not in kept:
            remove_network_namespace(path)
