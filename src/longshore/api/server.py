"""The API's server: every listener, and every connection on them."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.api.connection import Connection
from longshore.api.listeners import listen
from longshore.api.router import Router
from longshore.api.tls import TlsChannel

if TYPE_CHECKING:
    from longshore.config import Config
    from longshore.engine.engine import Engine

log = logging.getLogger(__name__)

Listening = tuple[str, socket.socket, ssl.SSLContext | None]
"""A host as the configuration names it, its socket, and TLS if it is spoken there."""


class ApiServer:
    """Serves an engine on the hosts of its configuration.

    Listening begins before the engine is there, so that a daemon that cannot have its sockets fails before
    it touches anything; clients wait in the backlog until `serving`.
    """

    def __init__(self, listening: list[Listening]) -> None:
        self._listening = listening
        self._connections: set[Connection] = set()

    @classmethod
    @asynccontextmanager
    async def listen(cls, config: Config) -> AsyncIterator[ApiServer]:
        """Hold every socket of `config.hosts` open. Raises InvalidParameter or System."""
        with ExitStack() as stack:
            listening: list[Listening] = []
            for host in config.hosts:
                for sock, context in listen(host, config):
                    stack.callback(_close, host, sock)
                    listening.append((host, sock, context))
            yield cls(listening)

    @asynccontextmanager
    async def serving(self, engine: Engine, grace: float = 5) -> AsyncIterator[None]:
        """Answer requests meanwhile.

        In the end streams and idle connections are closed, and requests get `grace` seconds to be answered.
        """
        router = Router(engine)
        loop = asyncio.get_running_loop()
        servers: list[asyncio.AbstractServer] = []

        def accept(context: ssl.SSLContext | None) -> Connection:
            tls = TlsChannel(context) if context is not None else None
            return Connection(router.answer, self._connections, tls)

        try:
            for host, sock, context in self._listening:
                sock.setblocking(False)
                # A duplicate: the server closes its socket, but the name must stay ours until the very end.
                serve = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
                servers.append(await serve(partial(accept, context), sock=sock.dup()))
                log.info("API listen on %s", host.removeprefix("unix://"))
            yield
        finally:
            for server in servers:
                server.close()
            await self._finish(grace)

    async def _finish(self, grace: float) -> None:
        tasks = [task for one in tuple(self._connections) if (task := one.shut_down()) is not None]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


def _close(host: str, sock: socket.socket) -> None:
    sock.close()
    if host.startswith("unix://"):
        Path(host.removeprefix("unix://")).unlink(missing_ok=True)
