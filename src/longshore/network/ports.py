"""Host ports: which of them are published, each held by a socket so that nobody else takes it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from longshore.errors import Conflict, EngineError, InvalidParameter, System
from longshore.network.endpoint import PublishedPort

if TYPE_CHECKING:
    from longshore.network.relay import Room

_WILDCARDS = ("0.0.0.0", "::")
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FALLBACK_RANGE = (49153, 65535)


class PortInUse(Conflict):
    """The host port, or every port of the range, is taken."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A container's port to publish, on the same host port at each of its places.

    A place is a host address and the container's address it leads to. Of the host ports from start to end
    the first is taken that is free at all of them; from 0, one of the ephemeral ones.
    """

    protocol: str
    container_port: int
    start: int
    end: int
    places: tuple[tuple[str, str], ...]
    direct: bool = False


class _Holder(Protocol):
    def close(self) -> None: ...


class PortAllocator:
    """Every host port of one controller. Owned by the event loop's thread; a call takes microseconds a port.

    A held socket is bound and never listens: the firewall translates packets before any socket sees them.
    Where it cannot, a relay listens instead.
    """

    def __init__(self, *, relays: bool = True, firewall: bool = True) -> None:
        self._relays, self._firewall = relays, firewall
        self._held: dict[tuple[str, int], dict[str, _Holder | None]] = {}
        self._next = 0
        self._room: Room | None = None

    @cached_property
    def relays_ipv6(self) -> bool:
        """Whether IPv6 clients can be served where containers have IPv4 alone."""
        if not self._relays:
            return False
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
                probe.bind(("::", 0))
        except OSError:
            return False
        return True

    def allocate(self, wanted: Sequence[Wanted]) -> list[PublishedPort]:
        """Take a host port for each, or none at all.

        Raises PortInUse, InvalidParameter, System with Docker's messages.
        """
        published: list[PublishedPort] = []
        with ExitStack() as undo:
            undo.callback(lambda: self.release(published))
            ephemeral = _ephemeral_range() if any(not one.start for one in wanted) else _FALLBACK_RANGE
            for one in wanted:
                published += self._allocate(one, ephemeral)
            undo.pop_all()
        return published

    def restore(self, ports: Iterable[PublishedPort]) -> list[str]:
        """Take again what a running container had published; returns what was found in the way."""
        problems: list[str] = []
        for port in ports:
            if not port.host_port:
                continue
            try:
                self._take(port)
            except EngineError as exc:
                problems.append(exc.message)
                self._held.setdefault((port.protocol, port.host_port), {})[port.host_ip] = None
        return problems

    def release(self, ports: Iterable[PublishedPort]) -> None:
        """Give ports back."""
        for port in ports:
            holders = self._held.get((port.protocol, port.host_port), {})
            holder = holders.pop(port.host_ip, None)
            if holder is not None:
                holder.close()
            if not holders:
                self._held.pop((port.protocol, port.host_port), None)

    def close(self) -> None:
        """Close every socket."""
        for holders in self._held.values():
            for holder in holders.values():
                if holder is not None:
                    holder.close()
        self._held.clear()

    def _allocate(self, wanted: Wanted, range_: tuple[int, int]) -> list[PublishedPort]:
        start, end = wanted.start, wanted.end or wanted.start
        if start and start == end:
            return self._take_all(wanted, start)
        ephemeral = not start
        if ephemeral:
            start, end = range_
            if not start <= self._next <= end:
                self._next = start
        first = self._next if ephemeral else start
        for number in chain(range(first, end + 1), range(start, first)):
            if ephemeral:
                self._next = number + 1
            try:
                return self._take_all(wanted, number)
            except PortInUse:
                continue
        raise PortInUse(f"Bind for {_join(wanted.places[0][0], start)} failed: all ports are allocated")

    def _take_all(self, wanted: Wanted, number: int) -> list[PublishedPort]:
        taken: list[PublishedPort] = []
        try:
            for host_ip, container_ip in wanted.places:
                port = PublishedPort(
                    wanted.protocol, container_ip, wanted.container_port, host_ip, number, wanted.direct
                )
                self._take(port)
                taken.append(port)
        except BaseException:
            self.release(taken)
            raise
        return taken

    def _take(self, port: PublishedPort) -> None:
        key = (port.protocol, port.host_port)
        holders = self._held.get(key, {})
        if any(_collide(port.host_ip, other) for other in holders):
            raise PortInUse(
                f"Bind for {_join(port.host_ip, port.host_port)} failed: port is already allocated"
            )
        holder = self._hold(port)
        self._held.setdefault(key, holders)[port.host_ip] = holder

    def _hold(self, port: PublishedPort) -> _Holder | None:
        """A socket, or a relay behind it for what the firewall does not translate."""
        relayed = self._relays and port.protocol in _KINDS and (":" in port.host_ip or not self._firewall)
        holder = _bind(port, relayed=relayed)
        if holder is None or not relayed:
            return holder
        from longshore.network.relay import DatagramRelay, Room, StreamRelay

        self._room = self._room or Room()
        relay = StreamRelay if port.protocol == "tcp" else DatagramRelay
        try:
            return relay(holder, (port.container_ip, port.container_port), self._room)
        except OSError as exc:
            holder.close()
            raise PortInUse(_bind_failure(port, exc)) from exc


def _bind(port: PublishedPort, *, relayed: bool) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    if port.protocol == "sctp":
        kind, protocol = socket.SOCK_STREAM, socket.IPPROTO_SCTP
    elif port.protocol in _KINDS:
        kind, protocol = _KINDS[port.protocol], 0
    else:
        raise InvalidParameter(f"unsupported transport protocol: {port.protocol}")
    try:
        holder = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as exc:
        if port.protocol == "sctp" and exc.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None  # A kernel without SCTP of its own has no SCTP port to keep; it still forwards.
        raise System(_bind_failure(port, exc)) from exc
    try:
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if relayed and kind == socket.SOCK_STREAM:
            # Connections that a relay had, and that linger, must not keep the port from being taken.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not relayed and kind == socket.SOCK_DGRAM:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        holder.bind((port.host_ip, port.host_port))
    except OSError as exc:
        holder.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortInUse(_bind_failure(port, exc)) from exc
        raise System(_bind_failure(port, exc)) from exc
    return holder


def _bind_failure(port: PublishedPort, exc: OSError) -> str:
    target = f"{_join(port.container_ip, port.container_port)}/{port.protocol}"
    reason = {
        errno.EADDRINUSE: "address already in use",
        errno.EADDRNOTAVAIL: "cannot assign requested address",
        errno.EMFILE: "too many open files",
        errno.EACCES: "permission denied",
    }.get(exc.errno or 0, str(exc.strerror).lower())
    return f"failed to bind host port for {port.host_ip}:{port.host_port}:{target}: {reason}"


def _collide(one: str, other: str) -> bool:
    return (":" in one) == (":" in other) and (one == other or one in _WILDCARDS or other in _WILDCARDS)


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _ephemeral_range() -> tuple[int, int]:
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except (OSError, ValueError):
        return _FALLBACK_RANGE
    return int(low), int(high)
