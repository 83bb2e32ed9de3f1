"""A client's session, as docker's CLI holds one open for a build: a gRPC server on a hijacked connection."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import grpclib.server
from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from longshore.buildkit.proto import session_pb2 as pb

DIRECTORY, SYMLINK = 1 << 31, 1 << 27
"""Bits of a Go os.FileMode, which is what a Stat's mode is."""

Tree = dict[str, "bytes | str | None"]
"""By path: bytes are a file, None a directory, a string a symbolic link's target."""
Serve = Callable[[Any], Awaitable[None]]

GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
CHECK_AGENT = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD_AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
SEND = "/moby.filesync.v1.FileSend/DiffCopy"
HEALTH = "/grpc.health.v1.Health/Check"


class SessionPeer:
    """Connects to a daemon's /session and answers; a context manager. `id` is what a build names it by.

    `serve` replaces what answers a method. `seen` collects the requests' metadata and arguments.
    """

    def __init__(
        self,
        socket_path: Path,
        *,
        secrets: dict[str, bytes] | None = None,
        agents: dict[str, Callable[[bytes], bytes]] | None = None,
        credentials: dict[str, tuple[str, str]] | None = None,
        trees: dict[str, Tree] | None = None,
        serve: dict[str, tuple[Serve, Cardinality, type, type]] | None = None,
        health_ms: int = 0,
        id: str = "",
    ) -> None:
        self.id = id or _new_id()
        self.socket_path = socket_path
        self.secrets = secrets
        self.agents = agents
        self.credentials = credentials
        self.trees = trees
        self.serve = serve or {}
        self.health_ms = health_ms
        self.seen: list[tuple[str, Any]] = []
        self.received: dict[str, list[Any]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._transport: asyncio.BaseTransport | None = None

    def __enter__(self) -> SessionPeer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.vanish()
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self) -> None:
        """Be there without a connection, for `serve_on`."""
        self._thread.start()

    def serve_on(self, connection: socket.socket) -> None:
        """Answer on a connection that is there already."""
        connection.setblocking(False)
        asyncio.run_coroutine_threadsafe(self._answer(connection), self._loop).result(30)

    def vanish(self) -> None:
        """Break the connection off."""
        if self._transport is not None:
            self._loop.call_soon_threadsafe(self._transport.abort)  # type: ignore[attr-defined]

    def methods(self) -> dict[str, Handler]:
        """What this session offers, by what it was given."""
        unary, both = Cardinality.UNARY_UNARY, Cardinality.STREAM_STREAM
        found: dict[str, Handler] = {
            HEALTH: Handler(self._health, unary, pb.HealthCheckRequest, pb.HealthCheckResponse)
        }
        if self.secrets is not None:
            found[GET_SECRET] = Handler(self._secret, unary, pb.GetSecretRequest, pb.GetSecretResponse)
        if self.credentials is not None:
            found[CREDENTIALS] = Handler(
                self._credentials, unary, pb.CredentialsRequest, pb.CredentialsResponse
            )
        if self.agents is not None:
            found[CHECK_AGENT] = Handler(self._check_agent, unary, pb.CheckAgentRequest, pb.Empty)
            found[FORWARD_AGENT] = Handler(self._forward_agent, both, pb.BytesMessage, pb.BytesMessage)
        if self.trees is not None:
            found[DIFF_COPY] = Handler(self._diff_copy, both, pb.Packet, pb.Packet)
        return found | {name: Handler(*handler) for name, handler in self.serve.items()}

    async def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        await self._loop.sock_connect(connection, str(self.socket_path))
        methods = self.methods()
        lines = [
            "POST /session HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            "Upgrade: h2c",
            f"X-Docker-Expose-Session-Uuid: {self.id}",
            "X-Docker-Expose-Session-Sharedkey: ",
            *(f"X-Docker-Expose-Session-Grpc-Method: {name}" for name in methods),
            *([f"X-BuildKit-Session-Health-Custom-Timeout: {self.health_ms}"] if self.health_ms else []),
        ]
        await self._loop.sock_sendall(connection, ("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            more = await self._loop.sock_recv(connection, 1)
            assert more, head
            head += more
        assert head.startswith(b"HTTP/1.1 101 "), head
        await self._answer(connection)

    async def _answer(self, connection: socket.socket) -> None:
        server = grpclib.server.Server([_Service(self.methods())])
        factory = server._protocol_factory
        self._transport, _ = await self._loop.connect_accepted_socket(factory, connection)

    async def _finish(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # what answers

    async def _health(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.HealthCheckResponse(status=1))

    async def _secret(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.seen.append(("secret", request.ID))
        assert self.secrets is not None
        if request.ID not in self.secrets:
            raise GRPCError(Status.NOT_FOUND, "not found")
        await stream.send_message(pb.GetSecretResponse(data=self.secrets[request.ID]))

    async def _credentials(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.seen.append(("credentials", request.Host))
        assert self.credentials is not None
        user, password = self.credentials.get(request.Host, ("", ""))
        await stream.send_message(pb.CredentialsResponse(Username=user, Secret=password))

    async def _check_agent(self, stream: Any) -> None:
        request = await stream.recv_message()
        assert self.agents is not None
        if request.ID not in self.agents:
            raise GRPCError(Status.UNKNOWN, f"unset ssh forward key {request.ID}")
        await stream.send_message(pb.Empty())

    async def _forward_agent(self, stream: Any) -> None:
        assert self.agents is not None
        answer = self.agents[stream.metadata["buildkit.ssh.id"]]
        async for message in stream:
            await stream.send_message(pb.BytesMessage(data=answer(message.data)))

    async def _diff_copy(self, stream: Any) -> None:
        name = stream.metadata["dir-name"]
        self.seen.append((f"sync {name}", {key: stream.metadata.getall(key) for key in stream.metadata}))
        assert self.trees is not None
        if name not in self.trees:
            raise GRPCError(Status.NOT_FOUND, f'no access allowed to dir "{name}"')
        await send_tree(stream, tree_stats(self.trees[name]))


Packets = list[tuple[pb.Stat, bytes]]


def tree_stats(tree: Tree) -> Packets:
    """What describes a tree, in the order of a walk; directories that are not named are implied."""
    every = dict(tree)
    for path in tree:
        parent = path.rpartition("/")[0]
        while parent:
            every.setdefault(parent, None)
            parent = parent.rpartition("/")[0]
    return [(stat_of(path, every[path]), _content(every[path])) for path in sorted(every, key=_walk_order)]


def stat_of(path: str, content: bytes | str | None, **fields: Any) -> pb.Stat:
    """How a sender describes one file."""
    mode = 0o755 | DIRECTORY if content is None else 0o777 | SYMLINK if isinstance(content, str) else 0o644
    settings: dict[str, Any] = {
        "path": path.encode(),
        "mode": mode,
        "modTime": 1_704_067_200_000_000_000,
        "size": len(content) if isinstance(content, bytes) else 0,
        "linkname": content.encode() if isinstance(content, str) else b"",
    }
    return pb.Stat(**(settings | fields))


async def send_tree(stream: Any, packets: Packets) -> None:
    """The sending side of a DiffCopy: descriptions, then what is asked for, until the receiver is done."""
    for stat, _ in packets:
        await stream.send_message(pb.Packet(type=pb.Packet.PACKET_STAT, stat=stat))
    await stream.send_message(pb.Packet(type=pb.Packet.PACKET_STAT))
    async for packet in stream:
        if packet.type == pb.Packet.PACKET_REQ:
            content = packets[packet.ID][1]
            for start in range(0, len(content), 32768):
                chunk = content[start : start + 32768]
                await stream.send_message(pb.Packet(type=pb.Packet.PACKET_DATA, ID=packet.ID, data=chunk))
            await stream.send_message(pb.Packet(type=pb.Packet.PACKET_DATA, ID=packet.ID))
        elif packet.type == pb.Packet.PACKET_FIN:
            await stream.send_message(pb.Packet(type=pb.Packet.PACKET_FIN))
            return
        elif packet.type == pb.Packet.PACKET_ERR:
            raise GRPCError(Status.UNKNOWN, packet.data.decode())


class _Service:
    def __init__(self, methods: dict[str, Handler]) -> None:
        self._methods = methods

    def __mapping__(self) -> dict[str, Handler]:
        return self._methods


def _walk_order(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))


def _content(given: bytes | str | None) -> bytes:
    return given if isinstance(given, bytes) else b""


def _new_id() -> str:
    return secrets.token_hex(12)


class Caller:
    """Calls the gRPC services that a daemon has on /grpc, as buildx does; a context manager."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.channel: _OneConnection | None = None

    def __enter__(self) -> Caller:
        self._thread.start()
        self.run(self._connect())
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, work: Any, timeout: float = 120) -> Any:
        """Run a coroutine on the connection's loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def start(self, work: Any) -> Any:
        """Begin a coroutine on the connection's loop; its future."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def leave(self) -> None:
        """Break the connection off."""

        async def abort() -> None:
            if self.channel is not None and self.channel.transport is not None:
                self.channel.transport.abort()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.run(abort())

    async def unary(
        self, name: str, request: Any, reply: type, metadata: dict[str, str] | None = None
    ) -> Any:
        """One request, one reply. Raises GRPCError."""
        assert self.channel is not None
        method = UnaryUnaryMethod(self.channel, name, type(request), reply)
        return await method(request, metadata=metadata)

    async def streamed(self, name: str, request: Any, reply: type) -> list[Any]:
        """One request, and all replies. Raises GRPCError."""
        assert self.channel is not None
        return await UnaryStreamMethod(self.channel, name, type(request), reply)(request)

    async def tunnel(self, peer: SessionPeer) -> None:
        """Bring the peer's session over this connection (Control.Session), until either ends it."""
        assert self.channel is not None
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        method = StreamStreamMethod(
            self.channel, "/moby.buildkit.v1.Control/Session", pb.BytesMessage, pb.BytesMessage
        )
        metadata = [("x-docker-expose-session-uuid", peer.id)]
        metadata += [("x-docker-expose-session-grpc-method", name) for name in peer.methods()]
        peer.serve_on(theirs)

        async def outgoing(stream: Any) -> None:
            while data := await self.loop.sock_recv(ours, 65536):
                await stream.send_message(pb.BytesMessage(data=data))
            await stream.end()

        async with method.open(metadata=metadata) as stream:
            await stream.send_request()
            sending = asyncio.create_task(outgoing(stream))
            try:
                async for message in stream:
                    await self.loop.sock_sendall(ours, message.data)
            finally:
                sending.cancel()
                ours.close()

    async def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        await self.loop.sock_connect(connection, str(self.socket_path))
        head = b"POST /grpc HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        await self.loop.sock_sendall(connection, head)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            more = await self.loop.sock_recv(connection, 1)
            assert more, answer
            answer += more
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        self.channel = _OneConnection()
        self.channel.transport, protocol = await self.loop.connect_accepted_socket(
            self.channel._protocol_factory, connection
        )
        self.channel.protocol = protocol


class _OneConnection(Channel):
    """A channel over a connection that is there."""

    def __init__(self) -> None:
        super().__init__("localhost", 80)
        self.transport: Any = None
        self.protocol: Any = None

    async def __connect__(self) -> Any:
        return self.protocol
