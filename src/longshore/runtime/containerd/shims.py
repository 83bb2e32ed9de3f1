"""Asks shims how their processes ended, while there is no containerd to ask.

From 1.7 on, a containerd that comes up takes a shim whose container has ended for a leaked one and does away
with it, and with the exit code. Shims speak ttrpc: a frame each way on a socket, of a header of ten bytes
(length, stream, type, flags) and a message (github.com/containerd/ttrpc, its PROTOCOL.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from longshore.runtime.containerd.processes import Processes
from longshore.runtime.containerd.proto import containerd_pb2 as pb

TIMEOUT = 2.0
"""Seconds that one shim may take for its answer: it has the state at hand."""
PATIENCE = 10.0
"""Seconds for all of them: who waits is the start of containerd."""
_HEADER = struct.Struct(">IIBB")
_REQUEST, _RESPONSE = 1, 2
_NO_MORE_DATA = 1
_LARGEST = 4 << 20


class Ended:
    """What had ended before containerd came up, which then may not know of it."""

    def __init__(self, state_dir: Path, namespace: str) -> None:
        """`state_dir` is the supervisor's, with containerd's own in it."""
        self._bundles = state_dir / "daemon/io.containerd.runtime.v2.task" / namespace
        self._namespace = namespace
        self._found: dict[tuple[str, str], pb.Process] = {}

    async def ask(self, processes: Processes) -> None:
        """Ask each shim for its container, and for the execs in it that are taken to be alive."""
        execs = [(each.id, each.exec_id) for each in processes.alive() if each.exec_id]
        self._found |= await asyncio.to_thread(self._ask, execs)

    def get(self, id: str, exec_id: str) -> pb.Process | None:
        """The process, if it is known to have ended."""
        return self._found.get((id, exec_id))

    def tasks(self) -> Iterator[tuple[str, pb.Process]]:
        """The containers' own processes, by their ids."""
        return ((id, process) for (id, exec_id), process in self._found.items() if not exec_id)

    def forget(self, id: str) -> pb.Process | None:
        """Forget a container, whose own process this returns, and its execs."""
        for key in [key for key in self._found if key[0] == id and key[1]]:
            del self._found[key]
        return self._found.pop((id, ""), None)

    def _ask(self, execs: list[tuple[str, str]]) -> dict[tuple[str, str], pb.Process]:
        found: dict[tuple[str, str], pb.Process] = {}
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(OSError):
            for id, exec_id in [*((path.name, "") for path in self._bundles.iterdir()), *execs]:
                if time.monotonic() > deadline:
                    break
                # A shim that does not answer, or is none of ours to talk to, is passed over.
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError, DecodeError):
                    process = _state(self._bundles / id, self._namespace, id, exec_id)
                    if process is not None and process.status == pb.STATUS_STOPPED:
                        found[id, exec_id] = process
        return found


def _state(bundle: Path, namespace: str, id: str, exec_id: str) -> pb.Process | None:
    """The shim's answer to State; None if it has no such process, or speaks something else."""
    address, version = _address(bundle)
    request = pb.ShimRequest(
        service=f"containerd.task.v{version}.Task",
        method="State",
        payload=pb.ProcessRequest(container_id=id, exec_id=exec_id).SerializeToString(),
        timeout_nano=int(TIMEOUT * 1e9),
        metadata=[pb.ShimRequest.KeyValue(key="containerd-namespace-ttrpc", value=namespace)],
    ).SerializeToString()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(address)
        connection.sendall(_HEADER.pack(len(request), 1, _REQUEST, _NO_MORE_DATA) + request)
        with connection.makefile("rb") as stream:
            length, _, kind, _ = _HEADER.unpack(_exactly(stream.read(_HEADER.size), _HEADER.size))
            if kind != _RESPONSE or length > _LARGEST:
                raise ValueError(f"not a response: type {kind} of {length} bytes")
            response = pb.ShimResponse.FromString(_exactly(stream.read(length), length))
    if response.status.code:
        return None
    # StateResponse has the numbers of containerd.v1.types.Process but for ids and bundle at its start.
    process = pb.Process.FromString(response.payload)
    process.container_id, process.id = id, exec_id or id
    return process


def _address(bundle: Path) -> tuple[str, int]:
    """Where the shim listens, and the version of its task service."""
    try:
        parameters = json.loads((bundle / "bootstrap.json").read_bytes())
    except FileNotFoundError:
        return (bundle / "address").read_text().removeprefix("unix://"), 2  # before containerd 1.7
    if not isinstance(parameters, dict) or parameters.get("protocol", "ttrpc") != "ttrpc":
        raise ValueError(f"{bundle}: the shim does not speak ttrpc")
    return str(parameters["address"]).removeprefix("unix://"), int(parameters.get("version", 2))


def _exactly(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise ValueError("the shim hung up")
    return data
