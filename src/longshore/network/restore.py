"""Sandboxes as the last engine left them: those that are still used are taken up, the rest is removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.linux import rtnetlink
from longshore.linux.namespaces import is_network_namespace, remove_network_namespace
from longshore.network.sandbox import Sandbox
from longshore.network.sandbox_record import SandboxRecord

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController

log = logging.getLogger(__name__)


async def restore_sandboxes(
    controller: NetworkController, sandboxes: dict[str, Sandbox], active: Mapping[str, str]
) -> None:
    """Fill `sandboxes` with those of active containers, by container id. Raises OSError."""
    kept: set[str] = set()
    left_over: list[SandboxRecord] = []
    for record in await asyncio.to_thread(controller.store.load, "sandbox", SandboxRecord):
        alive = record.container_id in active and (
            record.options.host or is_network_namespace(Path(record.key))
        )
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
        for problem in await sandbox.restore():
            log.warning("container %s: %s", record.container_id[:12], problem)
    for record in left_over:
        await asyncio.to_thread(_remove_left_over, controller, record)
        await _give_addresses_back(controller, record)
        await asyncio.to_thread(controller.store.delete, "sandbox", record.id)
    await asyncio.to_thread(_remove_namespaces, controller.config.namespaces, kept)


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
