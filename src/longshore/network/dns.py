"""The embedded resolver: at 127.0.0.11 in every sandbox on a user-defined network.

It answers the names of the sandbox's neighbours and passes on everything else to the machine's servers. Its
sockets are made inside the sandbox and bound to free ports; nftables there leads port 53 to them, so that
containers may have port 53 for themselves.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from typing import TYPE_CHECKING

from longshore.linux.namespaces import in_network_namespace
from longshore.linux.nftables import Nftables
from longshore.network import dnsmessage
from longshore.network.dnsmessage import Query
from longshore.network.endpoint import Endpoint
from longshore.network.files import upstream_servers
from longshore.network.resolvconf import INTERNAL_RESOLVER

if TYPE_CHECKING:
    from longshore.network.controller import NetworkController
    from longshore.network.sandbox import Sandbox

log = logging.getLogger(__name__)

_PORT = 53
_TIMEOUT = 4.0
"""Seconds for one server, as Docker's resolver waits."""
_CONCURRENT = 256
"""Queries under way for one sandbox; more are answered SERVFAIL, so that none can exhaust the engine."""
_IDLE = 30.0
"""Seconds that a TCP connection may say nothing."""


class Resolver:
    """The resolver of one sandbox, on the event loop."""

    def __init__(self, controller: NetworkController, sandbox: Sandbox) -> None:
        self._controller = controller
        self._sandbox = sandbox
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._upstream: list[str] = []
        self._inside = bool(sandbox.options.dns)
        """Whether the servers are asked from inside the sandbox: those that a user names are its own."""

    async def start(self) -> None:
        """Make the sockets and lead port 53 to them. Raises OSError; nothing is left on failure."""
        udp, tcp = await asyncio.to_thread(in_network_namespace, self._sandbox.key, _sockets)
        self._upstream = await asyncio.to_thread(upstream_servers, self._controller, self._sandbox)
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
            self._server = await asyncio.start_server(self._serve_connection, sock=tcp)
        except BaseException:
            udp.close()
            tcp.close()
            await self.close()
            raise

    async def close(self) -> None:
        """Close the sockets and give up what is under way."""
        if self._transport:
            self._transport.close()
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def serve_datagram(self, message: bytes, client: tuple[str, int]) -> None:
        """Answer a query that came as a datagram, at once or when a server has answered."""
        query = dnsmessage.parse(message)
        if query is None:
            if refusal := dnsmessage.refusal(message):
                self._send(refusal, client)
            return
        records = self._records(query)
        if records is not None:
            self._send(dnsmessage.datagram(query, records), client)
        elif not self._forwards() or len(self._tasks) >= _CONCURRENT:
            self._send(dnsmessage.answer(query, [], code=dnsmessage.SERVFAIL), client)
        else:
            task = asyncio.create_task(self._forward_datagram(query, message, client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _records(self, query: Query) -> list[bytes] | None:
        """What is answered to a question about one of our names, nothing maybe; None for other names."""
        if query.type == dnsmessage.PTR:
            if name := self._name_of(dnsmessage.reverse_address(query.name)):
                return dnsmessage.pointer_records(name)
            return None
        neighbours = self._neighbours(query.name)
        if not neighbours:
            return None
        random.shuffle(neighbours)
        return _address_records(neighbours, query.type)

    def _forwards(self) -> bool:
        """Not from internal networks: a name may not leave the machine."""
        return any(endpoint.default_route for endpoint in self._sandbox.endpoints)

    def _neighbours(self, name: str) -> list[Endpoint]:
        """The endpoints of that name, `NAME` or `NAME.NETWORK`, on any of the sandbox's networks."""
        found: list[Endpoint] = []
        for own in self._sandbox.endpoints:
            network = self._controller.networks_by_id.get(own.network_id)
            if network is not None and network.has_resolver:
                found += network.named(own.links.get(name, name))
        return found

    def _name_of(self, address: str) -> str:
        for own in self._sandbox.endpoints if address else ():
            network = self._controller.networks_by_id.get(own.network_id)
            if network is not None and network.has_resolver:
                for endpoint in network.endpoints.values():
                    if address in (endpoint.ipv4_address, endpoint.ipv6_address):
                        return f"{endpoint.name}.{network.name}"
        return ""

    async def _forward_datagram(self, query: Query, message: bytes, client: tuple[str, int]) -> None:
        reply = dnsmessage.answer(query, [], code=dnsmessage.SERVFAIL)
        for server in self._upstream:
            try:
                reply = await asyncio.wait_for(self._ask(query, message, server), _TIMEOUT)
            except (OSError, TimeoutError):
                continue
            if dnsmessage.is_final(reply):
                break
        self._send(dnsmessage.as_datagram(query, reply), client)

    def _send(self, reply: bytes, client: tuple[str, int]) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.sendto(reply, client)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= _CONCURRENT:
            writer.close()
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while True:
                message = await asyncio.wait_for(_read_message(reader), _IDLE)
                reply = await self._reply_to(message)
                if reply is None:
                    return
                writer.write(struct.pack("!H", len(reply)) + reply)
                await asyncio.wait_for(writer.drain(), _IDLE)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _reply_to(self, message: bytes) -> bytes | None:
        """To a query over TCP; None to what must not be replied to."""
        query = dnsmessage.parse(message)
        if query is None:
            return dnsmessage.refusal(message)
        records = self._records(query)
        if records is not None:
            return dnsmessage.answer(query, records)
        if self._forwards():
            return await self._forward_stream(query, message)
        return dnsmessage.answer(query, [], code=dnsmessage.SERVFAIL)

    async def _forward_stream(self, query: Query, message: bytes) -> bytes:
        reply = dnsmessage.answer(query, [], code=dnsmessage.SERVFAIL)
        for server in self._upstream:
            try:
                told = await asyncio.wait_for(self._ask_by_stream(message, server), _TIMEOUT)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
            if not dnsmessage.matches(query, told):
                continue
            reply = told
            if dnsmessage.is_final(reply):
                break
        return reply

    async def _ask(self, query: Query, message: bytes, server: str) -> bytes:
        # A socket for each query: its random port is what makes forging a reply hard.
        one = await self._socket(server, socket.SOCK_DGRAM)
        loop = asyncio.get_running_loop()
        try:
            one.connect((server, _PORT))
            transport, protocol = await loop.create_datagram_endpoint(lambda: _Reply(query), sock=one)
        except BaseException:
            one.close()
            raise
        try:
            transport.sendto(message)
            return await protocol.reply
        finally:
            transport.close()

    async def _ask_by_stream(self, message: bytes, server: str) -> bytes:
        one = await self._socket(server, socket.SOCK_STREAM)
        try:
            await asyncio.get_running_loop().sock_connect(one, (server, _PORT))
            reader, writer = await asyncio.open_connection(sock=one)
        except BaseException:
            one.close()
            raise
        try:
            writer.write(struct.pack("!H", len(message)) + message)
            return await _read_message(reader)
        finally:
            writer.close()

    async def _socket(self, server: str, kind: socket.SocketKind) -> socket.socket:
        def make() -> socket.socket:
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

        if self._inside:
            return await asyncio.to_thread(in_network_namespace, self._sandbox.key, make)
        return make()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._resolver.serve_datagram(data, addr)


class _Reply(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers a query; others may be forged and are passed over."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _: object) -> None:
        if not self.reply.done() and dnsmessage.matches(self._query, data):
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(length)


def _address_records(endpoints: list[Endpoint], kind: int) -> list[bytes]:
    wanted = []
    for endpoint in endpoints:
        if kind in (dnsmessage.A, dnsmessage.ANY) and endpoint.ipv4_address:
            wanted.append(endpoint.ipv4_address)
        if kind in (dnsmessage.AAAA, dnsmessage.ANY) and endpoint.ipv6_address:
            wanted.append(endpoint.ipv6_address)
    return [dnsmessage.address_record(address) for address in dict.fromkeys(wanted)]


def _sockets() -> tuple[socket.socket, socket.socket]:
    """The two sockets, and the rules that lead port 53 to them; called inside the sandbox."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        for one in (udp, tcp):
            one.setblocking(False)
            one.bind((INTERNAL_RESOLVER, 0))
        tcp.listen(64)
        resolver = INTERNAL_RESOLVER
        ports = [one.getsockname()[1] for one in (udp, tcp)]
        table, rule = "ip longshore_dns", f"add rule ip longshore_dns output ip daddr {resolver}"
        nft = Nftables()
        try:
            # Flushed, not deleted, if an earlier engine left it: that takes a hundredth of the time. Behind
            # iptables' chains, which a dockerd that takes the container over makes for its own resolver.
            nft.run(
                f"add table {table}\n"
                f"add chain {table} output {{ type nat hook output priority -99; policy accept; }}\n"
                f"flush chain {table} output\n"
                f"{rule} udp dport 53 dnat to {resolver}:{ports[0]}\n"
                f"{rule} tcp dport 53 dnat to {resolver}:{ports[1]}\n"
            )
        finally:
            nft.close()
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return udp, tcp
