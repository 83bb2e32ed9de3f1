"""The network controller: every network and sandbox of one engine."""

from __future__ import annotations

import asyncio
import copy
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

from longshore.errors import Conflict, Forbidden, InvalidParameter, NotFound, System
from longshore.linux.netlink import NetlinkSocket
from longshore.network.config import DEFAULT_ADDRESS_POOLS, GLOBAL_ADDRESS_POOLS, NetworkConfig
from longshore.network.create import (
    PREDEFINED,
    config_record,
    settings_of,
    user_record,
)
from longshore.network.database import NetworkDatabase
from longshore.network.departures import Departures
from longshore.network.drivers import DriverRegistry, Machine
from longshore.network.drivers.builtin import register_drivers
from longshore.network.firewall import Firewall
from longshore.network.foreign import admit_all, dismiss, obstacles
from longshore.network.ipam import AddressSpace, IPAMPool
from longshore.network.ipam_driver import BUILT_IN, RemoteIpam
from longshore.network.lifecycle import take_down, take_up
from longshore.network.network import Network
from longshore.network.options import ENABLE
from longshore.network.ports import PortAllocator
from longshore.network.record import NetworkRecord
from longshore.network.restore import restore_networks, restore_sandboxes
from longshore.network.sandbox import Sandbox
from longshore.network.sandbox_record import SandboxOptions, SandboxRecord
from longshore.network.sharing import Sharing
from longshore.network.store import Store
from longshore.network.threads import in_spare_thread, to_its_end
from longshore.network.warm import WarmSandboxes
from longshore.network.watch import FirewallWatch

__all__ = ["Network", "NetworkController", "Sandbox"]

log = logging.getLogger(__name__)


class NetworkController:
    """Docker's container network model. Its methods are called on one event loop."""

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self.store = Store(config.store)
        self.database = NetworkDatabase(config.database)
        self.ports = PortAllocator(relays=config.userland_proxy, firewall=config.firewall)
        self.drivers = DriverRegistry(config.plugin)
        self.ipam_drivers: dict[str, RemoteIpam] = {}
        self.networks_by_id: dict[str, Network] = {}
        self._warm = WarmSandboxes(config.namespaces, config.warm_sandboxes)
        self._machine: Machine | None = None
        self._watch: FirewallWatch | None = None
        self._spaces = {
            "local": AddressSpace(config.default_address_pools or list(DEFAULT_ADDRESS_POOLS)),
            "global": AddressSpace(list(GLOBAL_ADDRESS_POOLS)),
        }
        self._sharing: Sharing | None = None
        self._sandboxes: dict[str, Sandbox] = {}
        self.departures = Departures()
        self.settled = self.departures.settled
        self._making: dict[str, NetworkRecord] = {}
        """By id, networks on the way: what they are to have nobody else may have."""
        self._names: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By name, held while a network of that name is made or removed: a plug-in may take its time."""
        self.lock = asyncio.Lock()
        """Held while a network is changed on the machine itself, and never while a plug-in is asked."""

    async def start(
        self,
        active_sandboxes: Mapping[str, str],
        made_elsewhere: Callable[[str], SandboxRecord | None] = lambda _: None,
    ) -> None:
        """Take up networks and sandboxes where the last engine left them.

        `active_sandboxes`: ids of the containers that still run, to the path of their network namespace or
        a process id. Theirs are restored, those without a record as `made_elsewhere`, called in a thread,
        tells; whatever else was left is removed. Raises OSError, EngineError.
        """
        await asyncio.to_thread(self._open)
        stored = await asyncio.to_thread(self.database.merge, self.store)
        await restore_networks(self, stored)
        known = [one for one in stored if one.name not in PREDEFINED]
        await asyncio.to_thread(self.database.add, [*known, *self.records()])
        await restore_sandboxes(self, self._sandboxes, active_sandboxes, made_elsewhere)
        if self.machine.firewall:
            try:
                self._watch = FirewallWatch(self.machine.firewall, lambda: admit_all(self))
            except OSError as exc:
                log.warning("whoever flushes the firewall's rules will not be seen: %s", exc)
            # Everything in one transaction, in place of what the last engine left.
            await asyncio.to_thread(self.machine.firewall.build)
        if self.config.live_restore:
            self._sharing = Sharing(self.store, self._share)
        self._warm.fill()

    async def stop(self, keep_active: bool) -> None:
        """Shut down. Unless running sandboxes are to be kept, they, the table and the default bridge go."""
        if self._sharing:
            await self._sharing.close()
        if keep_active:
            await self._share()
        for sandbox in list(self._sandboxes.values()):
            if keep_active:
                await sandbox.detach()
            else:
                await self.sandbox_destroy(sandbox.container_id)
        await self.settled()
        await self._warm.close()
        if self._watch:
            await self._watch.close()
            self._watch = None
        kept = keep_active and bool(self._sandboxes)
        self._sandboxes.clear()
        self.ports.close()
        await asyncio.to_thread(self._close, kept)

    def networks(self) -> list[Network]:
        """All networks, in the order of their creation."""
        return list(self.networks_by_id.values())

    def network(self, name_or_id: str) -> Network:
        """A network by its id, its name or an unambiguous beginning of its id.

        Raises NotFound, InvalidParameter for an ambiguous beginning.
        """
        found = self.networks_by_id.get(name_or_id)
        if found is None:
            found = next((one for one in self.networks_by_id.values() if one.name == name_or_id), None)
        if found is not None:
            return found
        matches = [one for id, one in self.networks_by_id.items() if name_or_id and id.startswith(name_or_id)]
        if len(matches) > 1:
            raise InvalidParameter(
                f"network {name_or_id} is ambiguous ({len(matches)} matches found based on ID prefix)"
            )
        if not matches:
            raise NotFound(f"network {name_or_id} not found")
        return matches[0]

    async def create_network(
        self,
        name: str,
        driver: str = "bridge",
        *,
        options: Mapping[str, str] | None = None,
        ipam: Sequence[IPAMPool] = (),
        internal: bool = False,
        attachable: bool = False,
        enable_ipv4: bool = True,
        enable_ipv6: bool = False,
        labels: Mapping[str, str] | None = None,
        ipam_options: Mapping[str, str] | None = None,
        ipam_driver: str = BUILT_IN,
        scope: str = "",
        config_only: bool = False,
        config_from: str = "",
    ) -> Network:
        """Make a network. Raises Forbidden, Conflict, InvalidParameter, NotFound with Docker's messages.

        With `config_only` nothing is made but a place for settings, which other networks take by naming it
        in `config_from`.
        """
        if name in PREDEFINED:
            raise Forbidden(f"operation is not permitted on predefined {name} network ")
        if not config_only:
            await in_spare_thread(self.drivers.discover, driver or "bridge")
            await in_spare_thread(self._find_ipam_driver, ipam_driver)
        async with self._name(name):
            if any(network.name == name for network in self.networks_by_id.values()):
                raise Conflict(f"network with name {name} already exists")
            if config_from:
                given = options or ipam or labels or ipam_options or enable_ipv6
                given = given or ipam_driver not in ("", BUILT_IN)
                standing = [one.record for one in self.networks_by_id.values() if not one.removing]
                settings = settings_of(standing, config_from, config_only, bool(given))
                options, ipam, labels = settings.options, settings.pools, settings.labels
                ipam_options, ipam_driver = settings.ipam_options, settings.ipam_driver
                enable_ipv4, enable_ipv6 = settings.enable_ipv4, settings.enable_ipv6
            if config_only:
                record = config_record(
                    name,
                    options=dict(options or {}),
                    pools=list(ipam),
                    ipam_options=dict(ipam_options or {}),
                    operator_fields=internal or attachable,
                    enable_ipv4=enable_ipv4,
                    enable_ipv6=enable_ipv6,
                    labels=dict(labels or {}),
                    ipam_driver=ipam_driver or BUILT_IN,
                )
                return await self._make(record)
            defaults = self.config.default_network_opts.get(driver or "bridge", {})
            options = {**{k: v for k, v in defaults.items() if k not in ENABLE.values()}, **(options or {})}
            record = user_record(
                name,
                driver or "bridge",
                options=dict(options or {}),
                pools=list(ipam),
                ipam_options=dict(ipam_options or {}),
                internal=internal,
                attachable=attachable,
                enable_ipv4=enable_ipv4,
                enable_ipv6=enable_ipv6,
                labels=dict(labels or {}),
                ipam_driver=ipam_driver or BUILT_IN,
                scope=self.drivers.scope(driver or "bridge", scope),
                known=self.drivers,
            )
            record.config_from = config_from
            if any(other.link == record.link != "" for other in self.records()):
                raise Forbidden(f"bridge name already used by another network: {record.link}")
            return await self._make(record)

    async def _make(self, record: NetworkRecord) -> Network:
        self._making[record.id] = record
        try:
            return await to_its_end(take_up(self, record, new=True), self._unmake)
        finally:
            del self._making[record.id]

    async def _unmake(self, network: Network) -> None:
        if not (network.endpoints or network.moving):  # Somebody may have found it that very moment.
            await take_down(self, network)

    async def remove_network(self, network: Network) -> None:
        """Remove a network. Raises Forbidden for a predefined one or one with endpoints on it."""
        if network.name in PREDEFINED:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        async with self._name(network.name):
            await self.settled(network.id)
            if self.networks_by_id.get(network.id) is not network:
                raise NotFound(f"network {network.name} not found")
            if network.record.config_only and any(
                one.config_from in (network.name, network.id) for one in self.records()
            ):
                raise Forbidden(
                    f'error while removing network: configuration network "{network.name}" is in use'
                )
            if network.endpoints or network.moving:
                active = ", ".join(
                    f'name:"{endpoint.name}" id:"{endpoint.id[:12]}"'
                    for endpoint in network.endpoints.values()
                )
                raise Forbidden(
                    f"error while removing network: network {network.name} has active endpoints ({active})"
                )
            try:
                await to_its_end(take_down(self, network))
            except OSError as exc:
                raise System(f"error while removing network: {exc}") from exc

    @asynccontextmanager
    async def _name(self, name: str) -> AsyncIterator[None]:
        lock = self._names.get(name)
        if lock is None:
            lock = self._names[name] = asyncio.Lock()
        async with lock:
            yield

    async def create_sandbox(self, container_id: str, options: SandboxOptions) -> Sandbox:
        """Make a container's sandbox, after destroying any stale one it has. Raises OSError, System."""
        if not container_id.isalnum():
            raise InvalidParameter(f"invalid container id: {container_id!r}")
        await self.sandbox_destroy(container_id)
        id, warm = secrets.token_hex(32), None
        if not (options.host or options.namespace_of or options.sysctls):
            warm = self._warm.take()
        if warm:
            id = warm.path.name + id[len(warm.path.name) :]
        key = self.config.namespaces / ("default" if options.host else id[:12])
        sandbox = Sandbox(
            self,
            SandboxRecord(id=id, container_id=container_id, key=str(key), options=options),
            warm.rtnl if warm else None,
        )
        self._sandboxes[container_id] = sandbox
        try:
            await sandbox.create()
        except BaseException:
            del self._sandboxes[container_id]
            raise
        return sandbox

    async def sandbox_destroy(self, container_id: str) -> None:
        """Destroy a container's sandbox, if it has one."""
        sandbox = self._sandboxes.get(container_id)
        if sandbox is None:
            return
        await to_its_end(self._destroy(sandbox))

    async def _destroy(self, sandbox: Sandbox) -> None:
        await sandbox.destroy()
        if self._sandboxes.get(sandbox.container_id) is sandbox:
            del self._sandboxes[sandbox.container_id]
            networks = [endpoint.network_id for endpoint in sandbox.endpoints]
            self.departures.begin(sandbox.container_id, networks, sandbox.depart())

    async def _share(self) -> None:
        """Tell dockerd's database of the sandboxes as they are."""
        async with self.lock:
            records = [copy.deepcopy(each.record) for each in self._sandboxes.values()]
            await asyncio.to_thread(self.database.leave, records, dict(self.networks_by_id))

    def sandbox(self, container_id: str) -> Sandbox | None:
        """A container's sandbox, or None."""
        return self._sandboxes.get(container_id)

    def sandboxes(self) -> list[Sandbox]:
        """All sandboxes."""
        return list(self._sandboxes.values())

    def firewall_obstacles(self) -> list[str]:
        """What in other people's firewalls stops forwarded packets, in words. Blocks some milliseconds."""
        links = [network.record.link for network in self.networks() if network.record.link]
        return obstacles(self.config.table, links) if self.config.firewall else []

    def space(self, scope: str) -> AddressSpace:
        """The subnets of networks of that scope, `local` or `global`."""
        return self._spaces[scope]

    @property
    def machine(self) -> Machine:
        """Handles into the machine's own network namespace. Only between start and stop."""
        if self._machine is None:
            raise System("the network controller has not been started")
        return self._machine

    def records(self) -> list[NetworkRecord]:
        """Those of all networks, and of those that are being made. May be called in threads."""
        known = [network.record for network in list(self.networks_by_id.values())]
        return [*known, *(one for id, one in list(self._making.items()) if id not in self.networks_by_id)]

    # What follows blocks, and runs in threads.

    def _open(self) -> None:
        self.store.open()
        self.config.namespaces.mkdir(mode=0o755, parents=True, exist_ok=True)
        config = self.config
        firewall = Firewall(config.table, ipv6=config.firewall_ipv6) if config.firewall else None
        self._machine = Machine(self.config, NetlinkSocket(), firewall)
        if self.config.ip_forward:
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self.drivers.machine = self._machine
        register_drivers(self.drivers, self._machine, self.records)

    def _close(self, kept: bool) -> None:
        machine = self.machine
        if not kept:
            for network in self.networks_by_id.values():
                if network.is_default_bridge:
                    with suppress(OSError):
                        network.behaviour.delete(network)
            if machine.firewall:
                for network in self.networks_by_id.values():
                    if network.record.admitted:
                        dismiss(self.config.table, network.record.link)
                machine.firewall.remove()
        if machine.firewall:
            machine.firewall.close()
        machine.rtnl.close()
        self._machine = None
        self.database.close()

    def _find_ipam_driver(self, name: str) -> None:
        """Raises NotFound if there is no such IPAM driver."""
        if name in ("", BUILT_IN, "null") or name in self.ipam_drivers:
            return
        with suppress(NotFound):
            if self.config.plugin is not None and self.config.plugin(name).implements("IpamDriver"):
                return
        raise NotFound(f"could not find plugin {name} in v1 plugin registry: plugin not found")
