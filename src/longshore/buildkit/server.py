"""Answering gRPC on a connection that a client gave up to us, and sessions that come through such a call."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from grpclib.const import Cardinality, Status
from grpclib.const import Handler as Method
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.encoding.proto import ProtoCodec
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError
from grpclib.server import Handler, Stream

from longshore.buildkit.progress import clean
from longshore.buildkit.proto import control_pb2 as pb
from longshore.buildkit.sessions import BROKEN
from longshore.buildkit.transport import LimitedProtocol, start_protocol
from longshore.errors import EngineError, NotFound
from longshore.types.stream import RawConnection

log = logging.getLogger(__name__)

_SOURCE = "github.com/moby/buildkit/errdefs.Source+json"


async def serve(connection: RawConnection, methods: Mapping[str, Method]) -> None:
    """Answer calls on `connection`, by `/service/method`, until the client leaves."""
    handler = Handler(_Methods(methods), ProtoCodec(), _StatusDetails(), _DispatchServerEvents())
    try:
        await start_protocol(connection, LimitedProtocol(handler, client=False))
    finally:
        handler.close()
        await handler.wait_closed()


class _Methods(dict[str, Method]):
    """What grpclib says of a method that there is none of, Go's client does not understand."""

    def get(self, name: str, default: object = None) -> Method:
        return self[name] if name in self else Method(_unknown, Cardinality.STREAM_STREAM, pb.Empty, pb.Empty)


async def _unknown(stream: Stream[Any, Any]) -> None:
    raise GRPCError(Status.UNIMPLEMENTED, "unknown method")


def unary(
    answer: Callable[[Any, Stream[Any, Any]], Awaitable[Message]],
    request: type[Message],
    reply: type[Message],
) -> Method:
    """A method with one request and one reply. Errors of the engine are the client's to read."""

    async def call(stream: Stream[Any, Any]) -> None:
        message = await _request(stream)
        with _told():
            await stream.send_message(await answer(message, stream))

    return Method(call, Cardinality.UNARY_UNARY, request, reply)


def streaming(
    answer: Callable[[Any, Stream[Any, Any]], Awaitable[None]], request: type[Message], reply: type[Message]
) -> Method:
    """A method with one request and many replies, which `answer` sends."""

    async def call(stream: Stream[Any, Any]) -> None:
        message = await _request(stream)
        with _told():
            await answer(message, stream)

    return Method(call, Cardinality.UNARY_STREAM, request, reply)


async def _request(stream: Stream[Any, Any]) -> Any:
    try:
        message = await stream.recv_message()
    except DecodeError as exc:
        raise GRPCError(Status.INTERNAL, f"error unmarshalling request: {exc}") from None
    if message is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "no request")
    return message


@contextmanager
def _told() -> Iterator[None]:
    """What fails inside becomes a status, which says what failed."""
    try:
        yield
    except EngineError as exc:
        raise grpc_error(exc) from exc
    except BROKEN as exc:
        if isinstance(exc, OSError) and not isinstance(exc, ConnectionError):
            raise GRPCError(Status.UNKNOWN, clean(str(exc) or type(exc).__name__)) from exc
        raise
    except Exception as exc:
        log.exception("a call failed")
        raise GRPCError(Status.UNKNOWN, clean(str(exc) or type(exc).__name__)) from exc


@dataclass(frozen=True)
class Place:
    """A line of a Dockerfile, which clients show with a failure."""

    filename: str
    content: bytes
    line: int

    def detail(self) -> AnyMessage:
        """As BuildKit sends it beside an error."""
        told = {
            "info": {
                "filename": clean(self.filename),
                "data": base64.b64encode(self.content).decode(),
                "language": "Dockerfile",
            },
            "ranges": [{"start": {"line": self.line}, "end": {"line": self.line}}],
        }
        return AnyMessage(type_url=_SOURCE, value=msgspec.json.encode(told))


def grpc_error(exc: EngineError, text: str = "", place: Place | None = None) -> GRPCError:
    """The status that a client knows for one of the engine's errors."""
    # Clients put the name of any other status in front of the message.
    status = Status.NOT_FOUND if isinstance(exc, NotFound) else Status.UNKNOWN
    details = [place.detail()] if place is not None else None
    return GRPCError(status, clean(text or exc.message), details)


class _StatusDetails(StatusDetailsCodecBase):
    """Details of an error, without the package that grpclib would need for them."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        told = pb.RpcStatus(code=status.value, message=message or "", details=details)
        return told.SerializeToString()

    def decode(self, status: Status, message: str | None, data: bytes) -> Any:
        return pb.RpcStatus.FromString(data).details


class Tunnel:
    """A RawConnection in the messages of a call, for a client that has its one connection only."""

    def __init__(self, stream: Stream[pb.BytesMessage, pb.BytesMessage]) -> None:
        self._stream = stream
        self._closed = asyncio.Event()

    async def read(self) -> bytes:
        while not self._closed.is_set():
            message = await self._stream.recv_message()
            if message is None:
                return b""
            if message.data:
                return message.data
        return b""

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), 1 << 20):
            await self._stream.send_message(pb.BytesMessage(data=data[start : start + (1 << 20)]))

    async def write_eof(self) -> None:
        """The call's end is the end of both directions."""

    async def close(self) -> None:
        self._closed.set()
