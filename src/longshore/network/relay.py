"""Relays for published ports that the firewall cannot translate: IPv6 clients of containers that have IPv4
alone, `::1`, and everything where the firewall is off.

What dockerd starts a proxy process for each port for is here a socket and a callback on the event loop. As
there, connections that are relayed end with the daemon.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import OrderedDict

_CHUNK = 1 << 16
_IDLE = 90.0
"""Seconds after which a UDP client that says nothing is forgotten, as by Docker's proxy."""
_CLIENTS = 1024
"""UDP clients of one port; beyond that the one that has been silent for longest is forgotten."""
_BREATH = 0.1
"""Seconds to wait for file descriptors when there are none."""


class StreamRelay:
    """Accepts on a bound socket and passes bytes on to an address and back, with half-closes."""

    def __init__(self, holder: socket.socket, target: tuple[str, int]) -> None:
        """Takes the socket over. Raises OSError, e.g. when somebody else listens already."""
        self._holder, self._target = holder, target
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        holder.setblocking(False)
        holder.listen(128)
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
        try:
            client, _ = self._holder.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                self._loop.remove_reader(self._holder.fileno())
                self._pause = self._loop.call_later(_BREATH, self._resume)
            return
        task = self._loop.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._holder.fileno(), self._accept)

    async def _serve(self, client: socket.socket) -> None:
        writers: list[asyncio.StreamWriter] = []
        client.setblocking(False)
        try:
            reader, writer = await asyncio.open_connection(sock=client)
            writers.append(writer)
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass_on(reader, far_writer))
                both.create_task(_pass_on(far_reader, writer))
        except (OSError, ExceptionGroup):
            for writer in writers:
                writer.transport.abort()
        finally:
            if not writers:
                client.close()
            for writer in writers:
                writer.close()


class DatagramRelay:
    """Passes datagrams on from a bound socket, each client's from a socket of its own, and answers back."""

    def __init__(self, holder: socket.socket, target: tuple[str, int]) -> None:
        """Takes the socket over."""
        self._holder, self._target = holder, target
        self._clients: OrderedDict[tuple[str, int], tuple[socket.socket, float]] = OrderedDict()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        holder.setblocking(False)
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
            data, client = self._holder.recvfrom(_CHUNK)
            far = self._socket_for(client)
            far.send(data)
        except OSError:
            return  # Datagrams may be lost.

    def _socket_for(self, client: tuple[str, int]) -> socket.socket:
        known = self._clients.get(client)
        if known is None:
            family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
            far = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                far.connect(self._target)
            except OSError:
                far.close()
                raise
            if len(self._clients) >= _CLIENTS:
                self._forget(next(iter(self._clients)))
            self._loop.add_reader(far.fileno(), self._from_container, client, far)
        else:
            far = known[0]
        self._clients[client] = (far, self._loop.time())
        self._clients.move_to_end(client)
        if self._timer is None:
            self._timer = self._loop.call_later(_IDLE, self._tidy)
        return far

    def _from_container(self, client: tuple[str, int], far: socket.socket) -> None:
        try:
            self._holder.sendto(far.recv(_CHUNK), client)
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

    def _forget(self, client: tuple[str, int]) -> None:
        far, _ = self._clients.pop(client)
        self._loop.remove_reader(far.fileno())
        far.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
