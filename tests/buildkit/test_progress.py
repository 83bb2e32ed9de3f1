"""What followers of a solve are told, in messages that a client takes."""

from __future__ import annotations

import asyncio

from longshore.buildkit.progress import SolveProgress
from longshore.buildkit.proto import control_pb2 as pb


def _followed(progress: SolveProgress) -> list[pb.StatusResponse]:
    async def work() -> list[pb.StatusResponse]:
        return [message async for message in progress.follow()]

    return asyncio.run(work())


def test_messages_stay_small() -> None:
    progress = SolveProgress()
    for number in range(40):
        vertex = progress.vertex(f"{number} {'x' * 200_000}")
        vertex.log(b"y" * 300_000)
        vertex.complete()
    progress.end()
    told = _followed(progress)
    assert max(message.ByteSize() for message in told) < 2 << 20
    done = [vertex for message in told for vertex in message.vertexes if vertex.HasField("completed")]
    assert [vertex.name.partition(" ")[0] for vertex in done] == [str(number) for number in range(40)]
    assert sum(len(log.msg) for message in told for log in message.logs) == 40 * 300_000


def test_what_is_printed_has_an_end() -> None:
    progress = SolveProgress()
    vertex = progress.vertex("chatters")
    for _ in range(100):
        vertex.log(b"y" * 100_000)
    progress.end()
    printed = b"".join(log.msg for message in _followed(progress) for log in message.logs)
    assert printed.endswith(b"[output clipped, log limit 2MiB reached]\n")
    assert len(printed) < 3 << 20
