"""Warm sandboxes: a few network namespaces made ahead, so that a start does not wait for one.

They are kept where those of sandboxes are: what a crash leaves of them, the next start takes for left over.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
from pathlib import Path

from longshore.linux.namespaces import create_network_namespace, remove_network_namespace
from longshore.linux.netlink import NetlinkSocket
from longshore.network.namespace import set_up_namespace

log = logging.getLogger(__name__)

_PAUSE = 0.25
"""Seconds that a start has to itself before its namespace is made up for."""


@dataclass(frozen=True, slots=True)
class WarmNamespace:
    """A namespace with loopback up; `rtnl` works inside it. The name of its path is its own."""

    path: Path
    rtnl: NetlinkSocket


class WarmSandboxes:
    """The namespaces that are ready. Owned by the event loop's thread."""

    def __init__(self, directory: Path, size: int) -> None:
        self._directory, self._size = directory, size
        self._ready: list[WarmNamespace] = []
        self._filling: asyncio.Task[None] | None = None
        self._closed = False

    def fill(self) -> None:
        """Make up for what was taken, in a while."""
        if self._filling is None and not self._closed and len(self._ready) < self._size:
            self._filling = asyncio.create_task(self._fill(), name="warm sandboxes")

    def take(self) -> WarmNamespace | None:
        """One of them, which is the caller's now; None if there is none."""
        taken = self._ready.pop() if self._ready else None
        self.fill()
        return taken

    async def close(self) -> None:
        """Remove those that nobody took."""
        self._closed = True
        if self._filling:
            await asyncio.wait([self._filling])
        while self._ready:
            await asyncio.to_thread(_remove, self._ready.pop())

    async def _fill(self) -> None:
        try:
            await asyncio.sleep(_PAUSE)
            while len(self._ready) < self._size and not self._closed:
                self._ready.append(await asyncio.to_thread(_make, self._directory))
        except OSError as exc:
            log.warning("no network namespace can be made ahead: %s", exc)
        finally:
            self._filling = None


def _make(directory: Path) -> WarmNamespace:
    path = directory / secrets.token_hex(6)
    return WarmNamespace(path, create_network_namespace(path, lambda _: set_up_namespace({})))


def _remove(one: WarmNamespace) -> None:
    one.rtnl.close()
    remove_network_namespace(one.path)
