"""One attached client: its input to the container, the container's output to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Literal

from longshore.logs.detach import DEFAULT_DETACH_KEYS, DetachFilter
from longshore.logs.subscriber import Subscriber
from longshore.types.stream import RawConnection

AttachResult = Literal["detached", "eof", "container-exit"]
"""How an attach ended: by the detach keys, by the client (gone, too slow, or done with its input), or by the
end of the container's output."""

_SLICE = 64 * 1024
_TYPES = {"stdout": b"\x01\0\0\0", "stderr": b"\x02\0\0\0"}


async def serve(
    conn: RawConnection,
    subscriber: Subscriber,
    *,
    write_stdin: Callable[[bytes], Awaitable[None]] | None,
    close_stdin: Callable[[], Awaitable[None]] | None,
    detach_keys: bytes | None,
    multiplex: bool,
) -> AttachResult:
    """Copy both ways until either ends the attach.

    `close_stdin` is what the end of the client's input does; without it that end ends the attach, as in
    moby's container/stream/attach.go. `detach_keys` None means the default, b"" none at all.
    """
    keys = DEFAULT_DETACH_KEYS if detach_keys is None else detach_keys
    output = asyncio.ensure_future(_send(conn, subscriber, multiplex))
    source = asyncio.ensure_future(_receive(conn, write_stdin, close_stdin, DetachFilter(keys)))
    overrun = asyncio.ensure_future(subscriber.overrun.wait())
    try:
        await asyncio.wait((output, source, overrun), return_when=asyncio.FIRST_COMPLETED)
        if not output.done() and source.done() and (ended := source.result()) is not None:
            return ended
        await asyncio.wait((output, overrun), return_when=asyncio.FIRST_COMPLETED)
        return output.result() if output.done() else "eof"
    finally:
        for task in (output, source, overrun):
            task.cancel()
        await asyncio.gather(output, source, overrun, return_exceptions=True)


def frame(stream: str, payload: bytes) -> bytes:
    """One frame of the multiplexed stream (Docker API, "Stream format")."""
    return _TYPES[stream] + len(payload).to_bytes(4, "big") + payload


async def _send(conn: RawConnection, subscriber: Subscriber, multiplex: bool) -> AttachResult:
    try:
        while chunks := await subscriber.take():
            for stream, chunk in chunks:
                for start in range(0, len(chunk), _SLICE):
                    piece = chunk[start : start + _SLICE]
                    await conn.write(frame(stream, piece) if multiplex else piece)
                    subscriber.delivered(len(piece))
    except OSError:
        return "eof"
    return "container-exit"


async def _receive(
    conn: RawConnection,
    write_stdin: Callable[[bytes], Awaitable[None]] | None,
    close_stdin: Callable[[], Awaitable[None]] | None,
    detach: DetachFilter,
) -> AttachResult | None:
    """How the input ends the attach; None if the output goes on without it."""
    while True:
        try:
            data = await conn.read()
        except OSError:
            # Gone altogether. A container whose stdin is open once loses it with its client.
            if write_stdin is not None and close_stdin is not None:
                await _close(close_stdin)
            return "eof"
        if not data:
            break
        if write_stdin is None:
            continue
        passed, detached = detach.feed(data)
        try:
            if passed:
                await write_stdin(passed)
        except OSError:
            # The container closed its stdin or exited: its output decides when this ends.
            write_stdin = None
        if detached:
            return "detached"
    if write_stdin is None:
        return None
    if close_stdin is None:
        return "eof"
    await _close(close_stdin)
    return None


async def _close(close_stdin: Callable[[], Awaitable[None]]) -> None:
    with contextlib.suppress(OSError):
        await close_stdin()
