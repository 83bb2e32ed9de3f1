"""Streams between the event loop and threads come to an end on both sides."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from harness import Client, Longshored

from longshore.engine.bridges import chunks_of

MORE_THAN_THREADS = 40
"""What asyncio's pool has is 32 at most."""


@pytest.mark.parametrize("more", [0, 40])
def test_no_thread_waits_for_a_client_that_has_gone(more: int) -> None:
    """Neither the one that fetches the next chunk, nor the one that writes more than is taken."""
    going, gone = threading.Event(), threading.Event()

    def work(write: Callable[[bytes], None]) -> None:
        write(b"first")
        going.set()
        gone.wait()
        for _ in range(more):
            write(b"more")

    async def client() -> None:
        stream = chunks_of(work)
        assert await anext(stream) == b"first"
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.to_thread(going.wait)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gone.set()
        for thread in threading.enumerate():
            if thread.name == "stream":
                await asyncio.to_thread(thread.join, 20)
                assert not thread.is_alive()

    asyncio.run(client())


@pytest.fixture
def connections(daemon: Longshored) -> Iterator[list[socket.socket]]:
    """More than there are threads for everybody's work."""
    with ExitStack() as held:
        found = [held.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(MORE_THAN_THREADS)]
        for each in found:
            each.connect(str(daemon.socket))
        yield found


def test_clients_that_send_nothing_keep_nobody_waiting(api: Client, connections: list[socket.socket]) -> None:
    head = "POST /v1.41/{} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc"
    for number, each in enumerate(connections):
        each.sendall(head.format("build" if number % 2 else "images/load").encode())
    api.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]}).expect(201)


def test_clients_that_read_nothing_keep_nobody_waiting(api: Client, connections: list[socket.socket]) -> None:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "dd if=/dev/zero of=/big bs=1M count=40"]}
    id = api.post("/containers/create", body).expect(201).json["Id"]
    api.post(f"/containers/{id}/start").expect(204)
    api.post(f"/containers/{id}/wait").expect(200)
    for each in connections:
        each.sendall(f"GET /v1.41/containers/{id}/archive?path=/big HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert each.recv(16)
    api.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]}).expect(201)
