"""A sandbox: one container's network namespace, with its endpoints, its hosts file and its resolv.conf."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from longshore.errors import EngineError, Forbidden, System
from longshore.linux import rtnetlink
from longshore.linux.namespaces import (
    create_network_namespace,
    in_network_namespace,
    remove_network_namespace,
)
from longshore.linux.netlink import NetlinkSocket
from longshore.network.drivers.inside import delete_interface, wait_until_gone
from longshore.network.endpoint import Endpoint, EndpointOptions
from longshore.network.files import write_files
from longshore.network.gateway import gateway_network, needs_gateway_service
from longshore.network.moving import move_ports, publish_first
from longshore.network.namespace import set_up_namespace
from longshore.network.network import Network
from longshore.network.new_endpoint import make_endpoint
from longshore.network.publishing import as_bound, gateway_endpoint, port_options
from longshore.network.sandbox_record import SandboxOptions, SandboxRecord
from longshore.network.threads import in_spare_thread, in_thread, to_its_end
from longshore.tracing import span

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController
    from longshore.network.dns import Resolver

log = logging.getLogger(__name__)


class Sandbox:
    """One sandbox. Its methods are called on the event loop; one at a time takes effect."""

    def __init__(
        self, controller: NetworkController, record: SandboxRecord, rtnl: NetlinkSocket | None = None
    ) -> None:
        """`rtnl` works inside the namespace, if there is one already."""
        self._controller = controller
        self.record = record
        self._rtnl = rtnl
        self._lock = asyncio.Lock()
        self.resolver: Resolver | None = None
        self.destroyed = False

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.record.id

    @property
    def key(self) -> str:
        """Path of the network namespace; of a host sandbox, where Docker shows one."""
        return self.record.key

    @property
    def container_id(self) -> str:
        """Whose it is."""
        return self.record.container_id

    @property
    def endpoints(self) -> list[Endpoint]:
        """In the order in which they were joined."""
        return self.record.endpoints

    @property
    def options(self) -> SandboxOptions:
        """As it was asked for."""
        return self.record.options

    async def create(self) -> None:
        """Make the namespace, loopback up, and write the files. Raises OSError, System."""
        try:
            await in_thread(self._create)
        except asyncio.CancelledError:
            await in_thread(self._disconnect_all)
            await in_thread(self._controller.store.delete, "sandbox", self.id)
            raise

    async def join(self, network: Network, options: EndpointOptions) -> Endpoint:
        """Make an endpoint on the network and connect it, ports published; on failure nothing is left.

        Raises Forbidden, InvalidParameter, Unavailable, System with Docker's messages.
        """
        async with self._lock:
            if self.destroyed:
                raise Forbidden(f"sandbox of container {self.container_id[:12]} is gone")
            if network.driver == "host" and not self.options.host:
                raise Forbidden("container cannot be connected to host network: its namespace is its own")
            # What the container had here before may still be going, its addresses with it.
            await self._controller.settled(self.container_id)
            before = list(self.options.port_bindings)
            try:
                endpoint = await self._join(network, options)
            except BaseException:
                if self.endpoints:  # They go on as before.
                    with suppress(EngineError, OSError):
                        await in_thread(self._settle)
                        await move_ports(self._controller, self)
                raise
            try:
                await self._provide_gateway()
            except BaseException:
                self.options.port_bindings = before
                await to_its_end(self._leave(endpoint))
                raise
            return endpoint

    async def _join(
        self, network: Network, options: EndpointOptions, *, gateway_service: bool = False
    ) -> Endpoint:
        name = options.name or self.container_id[:12]
        if any(endpoint.network_id == network.id for endpoint in self.endpoints):
            raise Forbidden(f"endpoint with name {name} already exists in network {network.name}")
        if network.record.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        before = list(self.options.port_bindings)
        for endpoint in self.endpoints:
            before = as_bound(before, endpoint.ports)
        async with AsyncExitStack() as undo:
            endpoint = await make_endpoint(
                self._controller, self, network, options, undo, gateway_service=gateway_service
            )
            self.options.port_bindings = before + options.port_bindings
            undo.callback(setattr, self.options, "port_bindings", before)
            if network.behaviour.remote:
                endpoint.told = port_options(self.options)
            self.endpoints.append(endpoint)
            undo.callback(self.endpoints.remove, endpoint)
            with span("ports"):
                publish_first(self._controller, self, network, endpoint)
            undo.callback(lambda: self._controller.ports.release(endpoint.ports))
            try:
                await network.in_thread(self._connect, network, endpoint)
            except asyncio.CancelledError:
                await network.in_thread(self._disconnect_last)
                raise
            except OSError as exc:
                raise System(f"failed to set up container networking: {exc}") from exc
            try:
                await self.serve_names()
                await move_ports(self._controller, self)
            except BaseException:
                await network.in_thread(self._disconnect_last)
                raise
            undo.pop_all()
        return endpoint

    async def leave(self, endpoint: Endpoint) -> None:
        """Disconnect an endpoint and give back its addresses and ports. Nothing happens if it has left."""
        async with self._lock:
            if endpoint in self.endpoints:
                await to_its_end(self._leave_for_others(endpoint))

    async def _leave_for_others(self, endpoint: Endpoint) -> None:
        await self._leave(endpoint)
        try:
            await self._provide_gateway()
        except (EngineError, OSError) as exc:
            log.error("container %s has no way out any more: %s", self.container_id[:12], exc)

    async def _leave(self, endpoint: Endpoint) -> None:
        controller = self._controller
        network = controller.networks_by_id[endpoint.network_id]
        # Gone from the answers first, so that nobody is sent to what is being taken down.
        network.drop_endpoint(endpoint.id)
        with network.in_motion():
            self.options.port_bindings = as_bound(self.options.port_bindings, endpoint.ports)
            await network.in_thread(network.behaviour.disconnect, network, endpoint)
            controller.departures.begin(self.container_id, [network.id], self._remove(network, endpoint))
            await in_thread(lambda: wait_until_gone(endpoint, self._socket()))
            if network.ipam is not None:
                # Before it is forgotten: a plug-in's addresses would be lost with it.
                await network.release_addresses(endpoint)
            self.endpoints.remove(endpoint)
        controller.ports.release(endpoint.ports)
        await asyncio.to_thread(self._settle)
        await move_ports(controller, self)
        if self.resolver and not self._named():
            await self.resolver.close()
            self.resolver = None

    async def _provide_gateway(self) -> None:
        """Join the gateway service if there is no other way out, and leave it once there is."""
        served = next((one for one in self.endpoints if one.gateway_service), None)
        needed = needs_gateway_service(self.endpoints)
        if served is not None and not needed:
            await self._leave(served)
        elif served is None and needed:
            network = await gateway_network(self._controller)
            options = EndpointOptions(name=f"gateway_{self.id[:12]}")
            await self._join(network, options, gateway_service=True)

    async def _remove(self, network: Network, endpoint: Endpoint) -> None:
        try:
            await network.in_thread(network.behaviour.remove, network, endpoint)
        except OSError as exc:
            log.warning("cannot remove %s from %s: %s", endpoint.name, network.name, exc)
        if network.ipam is None:
            await network.release_addresses(endpoint)

    async def rename(self, old: str, new: str, dns_names: Mapping[str, list[str]]) -> None:
        """Let the endpoints go by another name; `dns_names` are all of their names, by network id."""
        async with self._lock:
            for endpoint in self.endpoints:
                network = self._controller.networks_by_id.get(endpoint.network_id)
                if network is None or endpoint.id not in network.endpoints:
                    continue
                network.drop_endpoint(endpoint.id)
                endpoint.name = new if endpoint.name == old else endpoint.name
                endpoint.dns_names = dns_names.get(endpoint.network_id, endpoint.dns_names)
                network.add_endpoint(endpoint)
            if not self.destroyed:
                await in_thread(self.save)

    async def relink(self, links: list[tuple[str, str, str]]) -> None:
        """Write other addresses of linked containers into the hosts file. Raises OSError."""
        async with self._lock:
            if self.destroyed or links == self.options.links:
                return
            self.options.links = links
            await in_thread(self._settle)

    async def destroy(self) -> None:
        """Disconnect every endpoint and remove the namespace. Nothing happens the second time.

        Ports are free when it returns. Links, which the kernel takes its time for, and the addresses on them
        go behind it, in `depart`.
        """
        async with self._lock:
            if self.destroyed:
                return
            self.destroyed = True
            if self.resolver:
                await self.resolver.close()
                self.resolver = None
            # Gone from the answers first, so that nobody is sent to what is being taken down.
            with ExitStack() as moving:
                for endpoint in self.endpoints:
                    if network := self._controller.networks_by_id.get(endpoint.network_id):
                        moving.enter_context(network.in_motion())
                        network.drop_endpoint(endpoint.id)
                await self._end_all()
            for endpoint in self.endpoints:
                self._controller.ports.release(endpoint.ports)

    async def _end_all(self) -> None:
        networks = self._controller.networks_by_id.values()
        remote = {network.id for network in networks if network.behaviour.remote}
        asks = any(endpoint.network_id in remote for endpoint in self.endpoints)
        await (in_spare_thread if asks else in_thread)(self._disconnect_all)

    async def depart(self) -> None:
        """What `destroy` leaves for later. The record goes last: until then a crash leaves a trace."""
        await in_thread(self._for_each_endpoint, "remove")
        for endpoint in self.endpoints:
            if network := self._controller.networks_by_id.get(endpoint.network_id):
                await network.release_addresses(endpoint)
        await in_thread(self._controller.store.delete, "sandbox", self.id)
        self.endpoints.clear()

    async def detach(self) -> None:
        """Let go of the namespace, which lives on: the engine stops and the container does not."""
        if self.resolver:
            await self.resolver.close()
            self.resolver = None
        if self._rtnl:
            self._rtnl.close()
            self._rtnl = None

    async def serve_names(self) -> None:
        """Start the embedded resolver once there is a network whose containers have names."""
        if self.resolver is None and self._named():
            from longshore.network.dns import Resolver

            self.resolver = Resolver(self._controller, self)
            try:
                await self.resolver.start()
            except OSError as exc:
                self.resolver = None
                raise System(f"failed to set up container networking: {exc}") from exc

    def _named(self) -> bool:
        networks = self._controller.networks_by_id
        return not self.options.host and any(
            network.has_resolver for one in self.endpoints if (network := networks.get(one.network_id))
        )

    # What follows blocks, and runs in threads.

    def _create(self) -> None:
        with ExitStack() as undo:
            undo.callback(self._remove_namespace)
            self.save()
            undo.callback(self._controller.store.delete, "sandbox", self.id)
            if not self.options.host and self._rtnl is None:
                with span("namespace"):
                    self._rtnl = create_network_namespace(
                        Path(self.key),
                        lambda _: set_up_namespace(self.options.sysctls),
                        pid=self.options.namespace_of,
                    )
            write_files(self._controller, self, fresh=True)
            undo.pop_all()

    def _connect(self, network: Network, endpoint: Endpoint) -> None:
        with ExitStack() as undo:
            undo.callback(self._save_without, endpoint)
            self.save()
            if network.behaviour.addressed:
                with span("endpoint", network=network.name):
                    network.behaviour.connect(network, endpoint, Path(self.key), self._socket())
                    if not endpoint.host_interface:
                        self.save()  # with what the driver chose
                undo.callback(self._take_down, network, endpoint)
                self._route()
            with span("files"):
                write_files(self._controller, self)
            undo.pop_all()

    def _disconnect(self, network: Network, endpoint: Endpoint) -> None:
        self._take_down(network, endpoint)
        if network.behaviour.addressed:
            delete_interface(endpoint, self._socket())

    def _disconnect_last(self) -> None:
        endpoint = self.endpoints[-1]
        self._disconnect(self._controller.networks_by_id[endpoint.network_id], endpoint)
        self._save_without(endpoint)

    def _take_down(self, network: Network, endpoint: Endpoint) -> None:
        network.behaviour.disconnect(network, endpoint)
        network.behaviour.remove(network, endpoint)

    def _settle(self) -> None:
        self.save()
        if not self.options.host:
            self._route()
        write_files(self._controller, self)

    def _route(self) -> None:
        """Let the best endpoint's gateway be the way out: highest priority, then first by network name."""
        rtnl = self._socket()
        for version in (4, 6):
            endpoint = gateway_endpoint(self.endpoints, version)
            if endpoint is None:
                continue
            link = rtnetlink.link_by_name(rtnl, endpoint.interface)
            if link is not None:
                gateway = endpoint.ipv4_gateway if version == 4 else endpoint.ipv6_gateway
                rtnetlink.set_default_route(rtnl, link.index, gateway, version)

    def _disconnect_all(self) -> None:
        self._for_each_endpoint("disconnect")
        self._remove_namespace()

    def _remove_namespace(self) -> None:
        if self._rtnl:
            self._rtnl.close()
            self._rtnl = None
        if not self.options.host:
            remove_network_namespace(Path(self.key))

    def _for_each_endpoint(self, step: Literal["disconnect", "remove"]) -> None:
        for endpoint in self.endpoints:
            network = self._controller.networks_by_id.get(endpoint.network_id)
            if network:
                try:
                    getattr(network.behaviour, step)(network, endpoint)
                except OSError as exc:
                    log.warning("cannot %s %s from %s: %s", step, endpoint.name, network.name, exc)

    def _socket(self) -> NetlinkSocket:
        if self._rtnl is None:
            self._rtnl = in_network_namespace(self.key, NetlinkSocket)
        return self._rtnl

    def save(self) -> None:
        """Write the record. Blocks; raises OSError."""
        self._controller.store.save("sandbox", self.id, self.record, durable=False)

    def _save_without(self, endpoint: Endpoint) -> None:
        rest = [other for other in self.endpoints if other is not endpoint]
        record = msgspec.structs.replace(self.record, endpoints=rest)
        self._controller.store.save("sandbox", self.id, record, durable=False)
