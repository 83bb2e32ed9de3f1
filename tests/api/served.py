"""A served API without an engine behind it: what is tested here never gets as far as one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import uvloop

from longshore.api import server as server_module
from longshore.config import Config
from longshore.events import EventBus
from longshore.tracing import TraceStore


class Served:
    """A server on a thread of its own, with routes that a test adds to the real ones."""

    def __init__(self, config: Config, path: Path) -> None:
        self.path = path
        self.events = EventBus()
        self.engine = cast(Any, SimpleNamespace(config=config, events=self.events, traces=TraceStore()))
        self.loop = uvloop.new_event_loop()
        self._config = config
        self._ready = threading.Event()
        self._end: asyncio.Event
        self.leaked: list[str] = []
        self._thread = threading.Thread(target=self.loop.run_until_complete, args=(self._main(),))

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(5)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(15)
        assert not self._thread.is_alive()
        self.loop.close()

    def tasks(self) -> int:
        """How many tasks run, the server's own and that of the question not counted."""

        async def count() -> int:
            return len(asyncio.all_tasks()) - 2

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(5)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        client.connect(str(self.path))
        return client

    def ask(self, request: str | bytes) -> tuple[int, dict[str, str], bytes]:
        """Send a whole request on a connection of its own; status, headers (lower case) and body."""
        raw = request.encode() if isinstance(request, str) else request
        with self.connect() as client:
            client.sendall(raw)
            return parse(read_response(client))

    def get(
        self, path: str, method: str = "GET", headers: str = "", body: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        if body:
            headers += f"Content-Length: {len(body)}\r\n"
        return self.ask(f"{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{headers}\r\n{body}")

    async def _main(self) -> None:
        self._end = asyncio.Event()
        async with (
            server_module.ApiServer.listen(self._config) as server,
            server.serving(self.engine, grace=2),
        ):
            self._ready.set()
            await self._end.wait()
        await asyncio.sleep(0)
        own = asyncio.current_task()
        self.leaked = [repr(task) for task in asyncio.all_tasks() if task is not own]


def read_response(client: socket.socket) -> bytes:
    """Until the server closes."""
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(1 << 16):
            data += chunk
    return bytes(data)


def parse(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, body


Serve = Callable[..., Served]
"""Start a server; routes given are served before the real ones, settings are the configuration's."""
