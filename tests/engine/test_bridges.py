"""Streams between the event loop and threads come to an end on both sides."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from longshore.engine.bridges import chunks_of


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
        await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 20)

    asyncio.run(client())
