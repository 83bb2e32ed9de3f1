"""A sandbox: one container's network namespace, with its endpoints, its hosts file and its resolv.conf."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from longshore.errors import EngineError, Forbidden, InvalidParameter, System
from longshore.linux import rtnetlink
from longshore.linux.namespaces import (
    create_network_namespace,
    in_network_namespace,
    remove_network_namespace,
)
from longshore.linux.netlink import NetlinkSocket
from longshore.network.drivers.bridge import mac_of
from longshore.network.endpoint import Endpoint, EndpointOptions
from longshore.network.files import write_files
from longshore.network.network import HOST_BINDING, INTERFACE_PREFIX, Network
from longshore.network.sandbox_record import SandboxOptions, SandboxRecord
from longshore.network.threads import in_thread
from longshore.tracing import span

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController
    from longshore.network.dns import Resolver

log = logging.getLogger(__name__)
_LOOPBACK = 1


class Sandbox:
    """One sandbox. Its methods are called on the event loop; one at a time takes effect."""

    def __init__(self, controller: NetworkController, record: SandboxRecord) -> None:
        self._controller = controller
        self.record = record
        self._rtnl: NetlinkSocket | None = None
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
            await in_thread(self._remove_all)
            raise

    async def join(self, network: Network, options: EndpointOptions) -> Endpoint:
        """Make an endpoint on the network and connect it, ports published; on failure nothing is left.

        Raises Forbidden, InvalidParameter, Unavailable, System with Docker's messages.
        """
        async with self._lock:
            if self.destroyed:
                raise Forbidden(f"sandbox of container {self.container_id[:12]} is gone")
            if any(endpoint.network_id == network.id for endpoint in self.endpoints):
                raise Forbidden(
                    f"endpoint with name {options.name or self.container_id[:12]} already exists "
                    f"in network {network.name}"
                )
            if network.removing:
                raise Forbidden(f"network {network.name} is being removed")
            if network.driver == "host" and not self.options.host:
                raise Forbidden("container cannot be connected to host network: its namespace is its own")
            with ExitStack() as undo:
                endpoint = self._make_endpoint(network, options, undo)
                with span("ports"):
                    self._allocate_ports(network, endpoint, options)
                undo.callback(lambda: self._controller.ports.release(endpoint.ports))
                self.endpoints.append(endpoint)
                undo.callback(self.endpoints.remove, endpoint)
                try:
                    await in_thread(self._connect, network, endpoint)
                    await self._serve_names()
                except asyncio.CancelledError:
                    await in_thread(self._disconnect_last)
                    raise
                except OSError as exc:
                    raise System(f"failed to set up container networking: {exc}") from exc
                undo.pop_all()
            return endpoint

    async def leave(self, endpoint: Endpoint) -> None:
        """Disconnect an endpoint and give back its addresses and ports. Nothing happens if it has left."""
        async with self._lock:
            if endpoint not in self.endpoints:
                return
            network = self._controller.networks_by_id[endpoint.network_id]
            await in_thread(_take_down, network, endpoint)
            self.endpoints.remove(endpoint)
            self._forget(network, endpoint)
            await asyncio.to_thread(self._settle)
            if self.resolver and not self._named():
                await self.resolver.close()
                self.resolver = None

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
            await in_thread(self._disconnect_all)
            for endpoint in self.endpoints:
                self._controller.ports.release(endpoint.ports)
                if network := self._controller.networks_by_id.get(endpoint.network_id):
                    network.endpoints.pop(endpoint.id, None)

    async def depart(self) -> None:
        """What `destroy` leaves for later. The record goes last: until then a crash leaves a trace."""
        await in_thread(self._remove_all)
        for endpoint in self.endpoints:
            if network := self._controller.networks_by_id.get(endpoint.network_id):
                network.release_addresses(endpoint)
        self.endpoints.clear()

    async def restore(self) -> list[str]:
        """Take up a sandbox whose container still runs; returns what could not be had again."""
        problems: list[str] = []
        for endpoint in self.endpoints:
            network = self._controller.networks_by_id[endpoint.network_id]
            for version, address in ((4, endpoint.ipv4_address), (6, endpoint.ipv6_address)):
                if address:
                    try:
                        network.take_address(version, address)
                    except EngineError as exc:
                        problems.append(f"{endpoint.name}: {address}: {exc.message}")
            network.endpoints[endpoint.id] = endpoint
            problems += self._controller.ports.restore(endpoint.ports)
            await asyncio.to_thread(network.behaviour.restore, network, endpoint)
        await self._serve_names()
        return problems

    async def detach(self) -> None:
        """Let go of the namespace, which lives on: the engine stops and the container does not."""
        if self.resolver:
            await self.resolver.close()
            self.resolver = None
        if self._rtnl:
            self._rtnl.close()
            self._rtnl = None

    def _make_endpoint(self, network: Network, options: EndpointOptions, undo: ExitStack) -> Endpoint:
        endpoint = Endpoint(
            id=secrets.token_hex(32),
            name=options.name or self.container_id[:12],
            network_id=network.id,
            network_name=network.name,
            container_id=self.container_id,
            aliases=list(options.aliases),
            dns_names=list(options.dns_names),
            driver_opts=dict(options.driver_opts),
            gw_priority=options.gw_priority,
            default_route=not network.internal,
        )
        if network.behaviour.addressed:
            undo.callback(network.release_addresses, endpoint)
            network.check_wanted(options.ipv4_address, options.ipv6_address)
            if network.enable_ipv4:
                endpoint.ipv4_address, endpoint.ipv4_prefixlen, endpoint.ipv4_gateway = network.take_address(
                    4, options.ipv4_address
                )
            if network.enable_ipv6:
                endpoint.ipv6_address, endpoint.ipv6_prefixlen, endpoint.ipv6_gateway = network.take_address(
                    6, options.ipv6_address
                )
            if network.internal:
                endpoint.ipv4_gateway = endpoint.ipv6_gateway = ""
            endpoint.mac_address = _mac_address(options.mac_address) or mac_of(endpoint.ipv4_address)
            endpoint.interface = self._free_interface(network.options.get(INTERFACE_PREFIX) or "eth")
            endpoint.host_interface = f"veth{secrets.token_hex(4)[:7]}"
        network.endpoints[endpoint.id] = endpoint
        undo.callback(network.endpoints.pop, endpoint.id, None)
        return endpoint

    def _allocate_ports(self, network: Network, endpoint: Endpoint, options: EndpointOptions) -> None:
        if not options.port_bindings or not network.behaviour.addressed or network.internal:
            return
        default = network.options.get(HOST_BINDING) or self._controller.config.default_ip
        four = [binding for binding in options.port_bindings if ":" not in binding.host_ip]
        six = [binding for binding in options.port_bindings if ":" in binding.host_ip]
        allocate = self._controller.ports.allocate
        try:
            if endpoint.ipv4_address and ":" not in default:
                endpoint.ports = allocate(four, endpoint.ipv4_address, default)
            if endpoint.ipv6_address and six:
                try:
                    endpoint.ports += allocate(six, endpoint.ipv6_address, "::")
                except EngineError:
                    self._controller.ports.release(endpoint.ports)
                    raise
        except EngineError as exc:
            raise System(
                "driver failed programming external connectivity on endpoint "
                f"{endpoint.name} ({endpoint.id}): {exc.message}"
            ) from exc

    def _free_interface(self, prefix: str) -> str:
        taken = {endpoint.interface for endpoint in self.endpoints}
        return next(name for i in range(len(taken) + 1) if (name := f"{prefix}{i}") not in taken)

    def _forget(self, network: Network, endpoint: Endpoint) -> None:
        network.endpoints.pop(endpoint.id, None)
        network.release_addresses(endpoint)
        self._controller.ports.release(endpoint.ports)

    async def _serve_names(self) -> None:
        """Start the embedded resolver once there is a network whose containers have names."""
        if self.resolver is None and self._named():
            from longshore.network.dns import Resolver

            self.resolver = Resolver(self._controller, self)
            try:
                await self.resolver.start()
            except BaseException:
                self.resolver = None
                await asyncio.to_thread(self._disconnect_last)
                raise

    def _named(self) -> bool:
        networks = self._controller.networks_by_id
        return not self.options.host and any(
            networks[endpoint.network_id].has_resolver
            for endpoint in self.endpoints
            if endpoint.network_id in networks
        )

    # What follows blocks, and runs in threads.

    def _create(self) -> None:
        with ExitStack() as undo:
            self._save()
            undo.callback(self._controller.store.delete, "sandbox", self.container_id)
            if not self.options.host:
                with span("namespace"):
                    self._rtnl = create_network_namespace(
                        Path(self.key), self._set_up_namespace, pid=self.options.namespace_of
                    )
                undo.callback(remove_network_namespace, Path(self.key))
                undo.callback(self._rtnl.close)
            write_files(self._controller, self, fresh=True)
            undo.pop_all()

    def _set_up_namespace(self, _: int) -> NetlinkSocket:
        # Interfaces get IPv6 from networks that have it; without this each would get a link-local address.
        sysctls = {"net.ipv6.conf.default.disable_ipv6": "1", **self.options.sysctls}
        for name, value in sysctls.items():
            path = Path("/proc/sys", *name.split("."))
            if not name.startswith("net.") or ".." in path.parts or "/" in name:
                raise InvalidParameter(f"sysctl {name} is not of a network namespace")
            with suppress(FileNotFoundError):
                path.write_text(value)
        rtnl = NetlinkSocket()
        try:
            rtnetlink.set_link_up(rtnl, _LOOPBACK)
        except BaseException:
            rtnl.close()
            raise
        return rtnl

    def _connect(self, network: Network, endpoint: Endpoint) -> None:
        with ExitStack() as undo:
            undo.callback(self._save_without, endpoint)
            self._save()
            if network.behaviour.addressed:
                with span("endpoint", network=network.name):
                    network.behaviour.connect(network, endpoint, Path(self.key), self._socket())
                undo.callback(_take_down, network, endpoint)
                self._route()
            with span("files"):
                write_files(self._controller, self)
            undo.pop_all()

    def _disconnect_last(self) -> None:
        endpoint = self.endpoints[-1]
        network = self._controller.networks_by_id[endpoint.network_id]
        _take_down(network, endpoint)
        self._save_without(endpoint)

    def _settle(self) -> None:
        self._save()
        if not self.options.host:
            self._route()
        write_files(self._controller, self)

    def _route(self) -> None:
        """Let the best endpoint's gateway be the way out: highest priority, then first by network name."""
        rtnl = self._socket()
        order = sorted(self.endpoints, key=lambda endpoint: (-endpoint.gw_priority, endpoint.network_name))
        for version in (4, 6):
            for endpoint in order:
                gateway = endpoint.ipv4_gateway if version == 4 else endpoint.ipv6_gateway
                if endpoint.default_route and gateway:
                    link = rtnetlink.link_by_name(rtnl, endpoint.interface)
                    if link is not None:
                        rtnetlink.set_default_route(rtnl, link.index, gateway)
                        break

    def _disconnect_all(self) -> None:
        self._for_each_endpoint("disconnect")
        if self._rtnl:
            self._rtnl.close()
            self._rtnl = None
        if not self.options.host:
            remove_network_namespace(Path(self.key))

    def _remove_all(self) -> None:
        self._for_each_endpoint("remove")
        self._controller.store.delete("sandbox", self.container_id)

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

    def _save(self) -> None:
        self._controller.store.save("sandbox", self.container_id, self.record, durable=False)

    def _save_without(self, endpoint: Endpoint) -> None:
        rest = [other for other in self.endpoints if other is not endpoint]
        record = msgspec.structs.replace(self.record, endpoints=rest)
        self._controller.store.save("sandbox", self.container_id, record, durable=False)


def _take_down(network: Network, endpoint: Endpoint) -> None:
    network.behaviour.disconnect(network, endpoint)
    network.behaviour.remove(network, endpoint)


def _mac_address(text: str) -> str:
    if not text:
        return ""
    try:
        octets = bytes.fromhex(text.replace(":", "").replace("-", ""))
    except ValueError:
        octets = b""
    if len(octets) != 6:
        raise InvalidParameter(f"invalid MAC address: {text}")
    return octets.hex(":")
