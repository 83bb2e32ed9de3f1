"""Relays for published ports that the firewall cannot translate: IPv6 clients of containers that have IPv4
alone, `::1`, and everything where the firewall is off.

What dockerd starts a proxy process for each port for is here a socket and a callback on the event loop. As
there, connections that are relayed end with the daemon.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import struct
from collections import OrderedDict
from contextlib import suppress

_CHUNK, _SMALL_CHUNK = 1 << 16, 1 << 13
"""Bytes under way in one direction of a connection; the smaller ones when there are many connections."""
_MANY = 256
_IDLE = 90.0
"""Seconds after which a UDP client that says nothing is forgotten, as by Docker's proxy."""
_CLIENTS = 1024
"""UDP clients of one port; beyond that the one that has been silent for longest is forgotten."""
_BREATH = 0.1
"""Seconds to wait for file descriptors when there are none."""
_ALIVE = 15
"""Seconds of silence after which a peer is asked whether it is still there, as by Docker's proxy."""
_AT_ONCE = 64
"""Connections taken from the backlog before others get their turn."""


_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)  # Python has the name since 3.12.
_ANCILLARY = socket.CMSG_SPACE(20)

_Ancillary = tuple[tuple[int, int, bytes], ...]
_Client = tuple[tuple[str, int], _Ancillary]
"""Where a client is, and what its answers are sent with."""


class Room:
    """How many connections and UDP clients are relayed at once, on all ports together.

    Each takes up to two file descriptors, and whoever reaches a published port can make more of them: half
    of the engine's descriptors stay its own. Relays have shares of it.
    """

    def __init__(self) -> None:
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
        self.taken = 0

    @property
    def chunk(self) -> int:
        """Bytes that a connection may have under way."""
        return _CHUNK if self.taken <= _MANY else _SMALL_CHUNK


class Share:
    """The places of one relay. It takes no more than it leaves free: whatever the clients of some ports do,
    those of others find a place."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no place to take."""
        return self._taken >= self._room.limit - self._room.taken

    def take(self) -> bool:
        """Take a place, if there is one."""
        if self.is_full:
            return False
        self._taken += 1
        self._room.taken += 1
        return True

    def give_back(self) -> None:
        """Undo `take`."""
        self._taken -= 1
        self._room.taken -= 1


class StreamRelay:
    """Accepts on a bound socket and passes bytes on to an address and back, with half-closes and resets."""

    def __init__(self, holder: socket.socket, target: tuple[str, int], room: Room) -> None:
        """Takes the socket over. Raises OSError, e.g. when somebody else listens already."""
        self._holder, self._target, self._room, self._share = holder, target, room, Share(room)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        holder.setblocking(False)
        holder.listen(4096)
        self._loop.add_reader(holder.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening and end what is relayed."""
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._holder.fileno())
        self._holder.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._share.take():
                self._wait()
                return
            try:
                client, _ = self._holder.accept()
            except OSError as exc:
                self._share.give_back()
                if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    self._wait()
                if exc.errno != errno.ECONNABORTED:
                    return
                continue
            task = self._loop.create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _wait(self) -> None:
        self._loop.remove_reader(self._holder.fileno())
        self._pause = self._loop.call_later(_BREATH, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._holder.fileno(), self._accept)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._share.give_back()

    async def _serve(self, client: socket.socket) -> None:
        family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
        with client, suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as far:
            try:
                for end in (client, far):
                    _set_up(end)
                await self._loop.sock_connect(far, self._target)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass_on(client, far))
                    both.create_task(self._pass_on(far, client))
            except (OSError, ExceptionGroup):
                for end in (client, far):  # Whoever is left learns by a reset that it was no good end.
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        while data := await self._loop.sock_recv(source, self._room.chunk):
            await self._loop.sock_sendall(sink, data)
            del data  # or it is held for as long as nothing comes
        with suppress(OSError):  # It may have gone as well.
            sink.shutdown(socket.SHUT_WR)


class DatagramRelay:
    """Passes datagrams on from a bound socket, each client's from a socket of its own, and answers back.

    Answers come from the address that the client has asked, of those that the machine has.
    """

    def __init__(self, holder: socket.socket, target: tuple[str, int], room: Room) -> None:
        """Takes the socket over."""
        self._holder, self._target, self._share = holder, target, Share(room)
        self._clients: OrderedDict[_Client, tuple[socket.socket, float]] = OrderedDict()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        holder.setblocking(False)
        if holder.family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            holder.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._loop.add_reader(holder.fileno(), self._from_client)

    def close(self) -> None:
        """Forget every client."""
        if self._timer:
            self._timer.cancel()
        self._loop.remove_reader(self._holder.fileno())
        self._holder.close()
        while self._clients:
            self._forget(next(iter(self._clients)))

    def _from_client(self) -> None:
        try:
            data, ancillary, _, address = self._holder.recvmsg(_CHUNK, _ANCILLARY)
            far = self._socket_for((address, _as_source(ancillary)))
            far.send(data)
        except OSError:
            return  # Datagrams may be lost.

    def _socket_for(self, client: _Client) -> socket.socket:
        known = self._clients.get(client)
        if known is None:
            far = self._new_socket()
            self._loop.add_reader(far.fileno(), self._from_container, client, far)
        else:
            far = known[0]
        self._clients[client] = (far, self._loop.time())
        self._clients.move_to_end(client)
        if self._timer is None:
            self._timer = self._loop.call_later(_IDLE, self._tidy)
        return far

    def _new_socket(self) -> socket.socket:
        if len(self._clients) >= _CLIENTS or (self._clients and self._share.is_full):
            self._forget(next(iter(self._clients)))
        if not self._share.take():
            raise OSError(errno.EMFILE, "too many are relayed")
        family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
        try:
            far = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                far.connect(self._target)
            except OSError:
                far.close()
                raise
        except OSError:
            self._share.give_back()
            raise
        return far

    def _from_container(self, client: _Client, far: socket.socket) -> None:
        address, source = client
        try:
            self._holder.sendmsg([far.recv(_CHUNK)], source, 0, address)
        except OSError:
            return

    def _tidy(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._clients:
            client, (_, last) = next(iter(self._clients.items()))
            if last + _IDLE > now:
                self._timer = self._loop.call_at(last + _IDLE, self._tidy)
                return
            self._forget(client)

    def _forget(self, client: _Client) -> None:
        far, _ = self._clients.pop(client)
        self._loop.remove_reader(far.fileno())
        far.close()
        self._share.give_back()


def _as_source(received: list[tuple[int, int, bytes]]) -> _Ancillary:
    """What makes an answer come from the address at which this was received."""
    for level, kind, data in received:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            address, link = struct.unpack("=16si", data)
            # Only addresses of one link alone need it named; others may answer by another way.
            return ((level, kind, struct.pack("=16si", address, link if address[0] == 0xFE else 0)),)
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, local, _ = struct.unpack("=i4s4s", data)
            return ((level, kind, struct.pack("=i4s4s", 0, local, bytes(4))),)
    return ()


def _set_up(end: socket.socket) -> None:
    end.setblocking(False)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
        end.setsockopt(socket.IPPROTO_TCP, option, _ALIVE)
