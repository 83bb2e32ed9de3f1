"""Host ports: which of them are published, each held by a socket so that nobody else takes it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from longshore.errors import Conflict, EngineError, InvalidParameter, System
from longshore.network.endpoint import PortBinding, PublishedPort

_WILDCARDS = ("0.0.0.0", "::")
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FALLBACK_RANGE = (49153, 65535)


class PortInUse(Conflict):
    """The host port, or every port of the range, is taken."""


class PortAllocator:
    """Every host port of one controller. Owned by the event loop's thread; a call takes microseconds a port.

    A held socket is bound and never listens: the firewall translates packets before any socket sees them.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], dict[str, socket.socket | None]] = {}
        self._next = 0

    def allocate(
        self, bindings: Sequence[PortBinding], container_ip: str, default_ip: str
    ) -> list[PublishedPort]:
        """Take a host port for every binding, or none at all.

        Raises PortInUse, InvalidParameter, System with Docker's messages.
        """
        published: list[PublishedPort] = []
        with ExitStack() as undo:
            chosen = any(not binding.host_port_start for binding in bindings)
            ephemeral = _ephemeral_range() if chosen else _FALLBACK_RANGE
            for binding in bindings:
                port = self._allocate(binding, container_ip, binding.host_ip or default_ip, ephemeral)
                undo.callback(self.release, [port])
                published.append(port)
            undo.pop_all()
        return published

    def restore(self, ports: Iterable[PublishedPort]) -> list[str]:
        """Take again what a running container had published; returns what was found in the way."""
        problems: list[str] = []
        for port in ports:
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

    def _allocate(
        self, binding: PortBinding, container_ip: str, host_ip: str, range_: tuple[int, int]
    ) -> PublishedPort:
        def port(number: int) -> PublishedPort:
            return PublishedPort(binding.protocol, container_ip, binding.container_port, host_ip, number)

        start, end = binding.host_port_start, binding.host_port_end or binding.host_port_start
        if start and start == end:
            return self._take(port(start))
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
                return self._take(port(number))
            except PortInUse:
                continue
        raise PortInUse(f"Bind for {_join(host_ip, start)} failed: all ports are allocated")

    def _take(self, port: PublishedPort) -> PublishedPort:
        key = (port.protocol, port.host_port)
        holders = self._held.get(key, {})
        if any(_collide(port.host_ip, other) for other in holders):
            raise PortInUse(
                f"Bind for {_join(port.host_ip, port.host_port)} failed: port is already allocated"
            )
        holder = _bind(port)
        self._held.setdefault(key, holders)[port.host_ip] = holder
        return port


def _bind(port: PublishedPort) -> socket.socket | None:
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
        if kind == socket.SOCK_DGRAM:
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
