"""What a shim answers, or something else in its place; real shims are asked in test_containerd."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from longshore.runtime.containerd import shims
from longshore.runtime.containerd.processes import Processes
from longshore.runtime.containerd.proto import containerd_pb2 as pb

STOPPED = pb.Process(pid=7, status=pb.STATUS_STOPPED, exit_status=3, container_id="x", id="/a/bundle")


def frame(message: pb.ShimResponse, kind: int = 2) -> bytes:
    content = message.SerializeToString()
    return struct.pack(">IIBB", len(content), 1, kind, 0) + content


@contextmanager
def shim(path: Path, answer: bytes | None) -> Iterator[list[bytes]]:
    """Listens at `path` and gives one answer, or none at all; yields what it was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(4096))
                if answer is not None:
                    connection.sendall(answer)
                else:
                    connection.recv(1)  # until the other side has had enough

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (frame(pb.ShimResponse(payload=STOPPED.SerializeToString())), True),
        (frame(pb.ShimResponse(payload=pb.Process(status=pb.STATUS_RUNNING).SerializeToString())), False),
        (frame(pb.ShimResponse(status=pb.ShimResponse.Status(code=5, message="not found"))), False),
        (frame(pb.ShimResponse(), kind=3), False),
        (struct.pack(">IIBB", 1 << 31, 1, 2, 0), False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (b"", False),
        (None, False),
    ],
)
def test_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, known: bool) -> None:
    monkeypatch.setattr(shims, "TIMEOUT", 0.3)
    bundle = tmp_path / "daemon/io.containerd.runtime.v2.task/moby/box"
    bundle.mkdir(parents=True)
    for nobody in ("empty", "gone"):
        (bundle.parent / nobody).mkdir()
    (bundle.parent / "gone/address").write_text(f"unix://{tmp_path}/nobody")
    address = f"unix://{tmp_path}/s"
    (bundle / "bootstrap.json").write_text(
        json.dumps({"version": 3, "address": address, "protocol": "ttrpc"})
    )
    ended = shims.Ended(tmp_path, "moby")
    with shim(tmp_path / "s", answer) as asked:
        asyncio.run(ended.ask(Processes()))
    request = pb.ShimRequest.FromString(asked[0][10:])
    assert (request.service, request.method) == ("containerd.task.v3.Task", "State")
    assert pb.ProcessRequest.FromString(request.payload).container_id == "box"
    tasks = dict(ended.tasks())
    assert list(tasks) == (["box"] if known else [])
    if known:
        assert (tasks["box"].id, tasks["box"].pid, tasks["box"].exit_status) == ("box", 7, 3)
        assert ended.forget("box") == tasks["box"] and ended.forget("box") is None
