"""Sees what others do to firewalls: puts our rules back when somebody takes them away (`nft flush ruleset`),
notes what users add to their part of them, and lets the engine see to what others drop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

from longshore.linux.netlink import NETLINK_NETFILTER
from longshore.network.firewall import Firewall
from longshore.network.ruleset import USERS

log = logging.getLogger(__name__)

_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES = 270, 1, 7
_SUBSYSTEM_NFTABLES = 10
_TELLING = {_SUBSYSTEM_NFTABLES << 8 | kind for kind in (2, 3, 5, 8, 11)}
"""Removals of tables, chains, rules and sets, and new chains or policies: nothing that the engine itself does
while it serves."""
_USERS = USERS.encode()
_HEADER = struct.Struct("=IH")
_CALM = 0.01
"""Seconds to wait for whoever flushes to be done: nft(8) tells of each thing it takes away."""
_AT_ONCE = 64
"""Messages read before others get their turn."""
_RETRY = 1.0
"""Seconds until what could not be done is tried again."""
_LATER = 30.0
"""Seconds until others are asked again who did not answer: it is they who are waited for."""


class FirewallWatch:
    """Watches one firewall, on the event loop. Binds to the network namespace of the calling thread."""

    def __init__(self, firewall: Firewall, admit: Callable[[], Awaitable[None]]) -> None:
        """`admit` is called when others may drop what they let through before. Raises OSError where the
        kernel tells nothing of nftables."""
        self._firewall = firewall
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._check: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        self._users_changed = self._others_changed = self._closed = False
        self._repair: asyncio.Task[None] | None = None
        self._admitting: asyncio.Task[None] | None = None
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
            self._loop.add_reader(self._socket.fileno(), self._read)
        except BaseException:
            self._socket.close()
            raise

    async def close(self) -> None:
        """Watch no more."""
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for timer in (self._check, self._again):
            if timer:
                timer.cancel()
        if self._repair:
            await asyncio.wait([self._repair])
        if self._admitting:
            await asyncio.wait([self._admitting])

    def _read(self) -> None:
        suspicious = False
        with suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                try:
                    data = self._socket.recv(1 << 16)
                except OSError as exc:
                    if exc.errno == errno.ENOBUFS:  # More happened than is told.
                        suspicious = True
                        continue
                    raise
                self._users_changed |= _USERS in data
                suspicious = suspicious or self._users_changed or _is_telling(data)
        if suspicious and self._check is None:
            self._check = self._loop.call_later(_CALM, self._begin)

    def _begin(self) -> None:
        self._check = None
        if self._again:
            self._again.cancel()
            self._again = None
        if self._repair is None or self._repair.done():
            self._repair = self._loop.create_task(self._look())
        else:
            self._check = self._loop.call_later(_CALM, self._begin)

    async def _look(self) -> None:
        changed, self._users_changed = self._users_changed, False
        try:
            if await asyncio.to_thread(self._firewall.repair):
                log.warning("somebody took the firewall's rules away; they are back")
            elif changed:
                await asyncio.to_thread(self._firewall.note_users)
        except OSError as exc:
            log.error("the firewall's rules were taken away and cannot be made again: %s", exc)
            self._try_again(_RETRY)
        self._others_changed = True
        if self._admitting is None or self._admitting.done():
            # Beside it: who takes our rules away meanwhile is not to wait for programs of others.
            self._admitting = self._loop.create_task(self._admit_again())

    async def _admit_again(self) -> None:
        while self._others_changed:
            self._others_changed = False
            try:
                await self._admit()
            except OSError as exc:
                log.warning("what firewalls of others drop is not known: %s", exc)
                self._try_again(_LATER)

    def _try_again(self, delay: float) -> None:
        if self._again is None and not self._closed:
            self._again = self._loop.call_later(delay, self._begin)


def _is_telling(data: bytes) -> bool:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, offset)
        if kind in _TELLING:
            return True
        offset += max((length + 3) & ~3, 16)
    return False
