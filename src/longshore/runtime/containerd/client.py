"""Calls to containerd: one gRPC channel, its methods as typed attributes, its errors told plainly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Generic, TypeVar

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.connection import H2Connection

from longshore.errors import Conflict, EngineError, NotFound, System, Unavailable
from longshore.runtime.containerd.proto import containerd_pb2 as pb
from longshore.runtime.task import RuntimeOptions

T = TypeVar("T")
Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)

_TASKS = "/containerd.services.tasks.v1.Tasks/"
_CONTAINERS = "/containerd.services.containers.v1.Containers/"
_EVENTS = "/containerd.services.events.v1.Events/"

# Every call is a stream, and of so many that have ended is remembered how. The default of 65536 is 20 MB that
# a daemon would grow by in its first days.
H2Connection.MAX_CLOSED_STREAMS = 256

# containerd's Go client appends the name of the error's class; Docker's users, and the engine, know it so.
_CLASSES = {
    Status.INVALID_ARGUMENT: "invalid argument",
    Status.NOT_FOUND: "not found",
    Status.ALREADY_EXISTS: "already exists",
    Status.FAILED_PRECONDITION: "failed precondition",
    Status.UNAVAILABLE: "unavailable",
    Status.UNIMPLEMENTED: "not implemented",
    Status.CANCELLED: "context canceled",
    Status.DEADLINE_EXCEEDED: "context deadline exceeded",
}


class Call(Generic[Request, Reply]):
    """One method of containerd's API, called like a function."""

    def __init__(self, client: Client, name: str, request: type[Request], reply: type[Reply]) -> None:
        self._method = UnaryUnaryMethod[Request, Reply](client.channel, name, request, reply)
        self._metadata = client.metadata

    async def __call__(self, request: Request, timeout: float | None = None) -> Reply:
        """Raises NotFound, Conflict, Unavailable or System; TimeoutError after `timeout` seconds."""
        try:
            return await self._method(request, timeout=timeout, metadata=self._metadata)
        except TimeoutError:
            raise
        except (GRPCError, StreamTerminatedError, ProtocolError, OSError) as exc:
            raise translate(exc) from exc


class Client:
    """A channel to one containerd. It is of no more use once that containerd is gone: make a new one."""

    def __init__(self, address: str, namespace: str) -> None:
        self.channel = Channel(path=address.removeprefix("unix://"))
        self.metadata = {"containerd-namespace": namespace}
        self._namespace = namespace
        empty = pb.Empty
        process = pb.ProcessRequest
        self.version = Call(
            self, "/containerd.services.version.v1.Version/Version", empty, pb.VersionResponse
        )
        self.health = Call(
            self, "/grpc.health.v1.Health/Check", pb.HealthCheckRequest, pb.HealthCheckResponse
        )
        self.container_create = Call(
            self, _CONTAINERS + "Create", pb.CreateContainerRequest, pb.CreateContainerResponse
        )
        self.container_delete = Call(self, _CONTAINERS + "Delete", pb.DeleteContainerRequest, empty)
        self.container_list = Call(
            self, _CONTAINERS + "List", pb.ListContainersRequest, pb.ListContainersResponse
        )
        self.create = Call(self, _TASKS + "Create", pb.CreateTaskRequest, pb.CreateTaskResponse)
        self.start = Call(self, _TASKS + "Start", process, pb.StartResponse)
        self.delete = Call(self, _TASKS + "Delete", process, pb.DeleteResponse)
        self.delete_process = Call(self, _TASKS + "DeleteProcess", process, pb.DeleteResponse)
        self.get = Call(self, _TASKS + "Get", process, pb.GetResponse)
        self.list = Call(self, _TASKS + "List", pb.ListTasksRequest, pb.ListTasksResponse)
        self.wait = Call(self, _TASKS + "Wait", process, empty)
        self.kill = Call(self, _TASKS + "Kill", pb.KillRequest, empty)
        self.exec = Call(self, _TASKS + "Exec", pb.ExecProcessRequest, empty)
        self.resize = Call(self, _TASKS + "ResizePty", pb.ResizePtyRequest, empty)
        self.close_io = Call(self, _TASKS + "CloseIO", pb.CloseIORequest, empty)
        self.pause = Call(self, _TASKS + "Pause", process, empty)
        self.resume = Call(self, _TASKS + "Resume", process, empty)
        self.pids = Call(self, _TASKS + "ListPids", process, pb.ListPidsResponse)
        self.checkpoint = Call(self, _TASKS + "Checkpoint", pb.CheckpointTaskRequest, empty)
        self.update = Call(self, _TASKS + "Update", pb.UpdateTaskRequest, empty)
        self.metrics = Call(self, _TASKS + "Metrics", pb.MetricsRequest, pb.MetricsResponse)
        self.publish = Call(self, _EVENTS + "Publish", pb.PublishRequest, empty)
        self._subscribe = UnaryStreamMethod(
            self.channel, _EVENTS + "Subscribe", pb.SubscribeRequest, pb.Envelope
        )

    @asynccontextmanager
    async def events(self, *filters: str) -> AsyncIterator[AsyncIterator[pb.Envelope]]:
        """The namespace's events that pass any of the filters, as long as the context is open."""
        request = pb.SubscribeRequest(filters=[f"namespace=={self._namespace},{each}" for each in filters])
        async with self._subscribe.open(metadata=self.metadata) as stream:
            await stream.send_message(request, end=True)
            yield aiter(stream)
            await stream.cancel()

    def close(self) -> None:
        """Close the connection; calls under way fail."""
        self.channel.close()


def translate(exc: BaseException, prefix: str = "") -> EngineError:
    """The error that the engine knows for one of gRPC's."""
    if not isinstance(exc, GRPCError):
        return Unavailable(f"{prefix}the connection to containerd broke: {str(exc) or type(exc).__name__}")
    suffix = _CLASSES.get(exc.status, "unknown")
    description = (exc.message or "").removesuffix(f": {suffix}")
    text = suffix if description in ("", suffix) else f"{description}: {suffix}"
    kind: type[EngineError] = System
    if exc.status is Status.NOT_FOUND or "container does not exist" in text or "no such container" in text:
        kind = NotFound
    elif exc.status in (Status.ALREADY_EXISTS, Status.FAILED_PRECONDITION) or "cannot delete a " in text:
        kind = Conflict
    elif exc.status is Status.UNAVAILABLE:
        kind = Unavailable
    return kind(prefix + text)


async def to_its_end(call: Coroutine[None, None, T]) -> T:
    """Await what must not be broken off halfway: a cancellation takes effect only once it has ended.

    containerd takes a call that its client cancels for a failed one, and tidies up behind our back.
    """
    task = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise


def any_json(name: str, value: bytes) -> Any:
    """An object of the OCI runtime spec by its name there: "Spec", "Process" or "LinuxResources"."""
    return Any(type_url=f"types.containerd.io/opencontainers/runtime-spec/1/{name}", value=value)


def any_message(name: str, message: Message) -> Any:
    """A message under containerd's own name for it."""
    return Any(type_url=name, value=message.SerializeToString())


def runc_options(runtime: RuntimeOptions, checkpoint: Path | None = None) -> Any | None:
    """What runc's shim is told of its runtime, and of the checkpoint to restore; None for other shims."""
    if runtime.type not in ("io.containerd.runc.v1", "io.containerd.runc.v2"):
        return None
    options = pb.Options(
        binary_name=runtime.path,
        root=runtime.root,
        systemd_cgroup=runtime.systemd_cgroup,
        criu_image_path=str(checkpoint) if checkpoint else "",
    )
    return any_message("containerd.runc.v1.Options", options)


def nanoseconds(stamp: Timestamp) -> int:
    """A protobuf timestamp in nanoseconds since the epoch; 0 if it was not set (or is Go's zero time)."""
    return max(0, stamp.seconds * 1_000_000_000 + stamp.nanos)
