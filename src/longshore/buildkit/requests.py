"""What a client is asked over its session: secrets, agents, credentials."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message
from grpclib.client import Stream, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from longshore.buildkit.proto import session_pb2 as pb
from longshore.buildkit.sessions import BROKEN, Session, translate
from longshore.errors import InvalidParameter, Unavailable

MAX_SECRET = 500 << 10
"""Bytes of a secret; BuildKit's limit."""

_GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
_CHECK_AGENT = "/moby.sshforward.v1.SSH/CheckAgent"
_FORWARD_AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
_PULL = "/moby.upload.v1.Upload/Pull"
_CHUNK = 32 << 10
_MOST_CONNECTIONS = 64
"""Connections to one forwarded agent at a time."""

M = TypeVar("M", bound=Message)


async def get_secret(session: Session, id: str) -> bytes | None:
    """The secret called `id`; None if the client has none.

    Raises InvalidParameter if it is larger than a secret may be, System, Unavailable.
    """
    doing = f"secret {id}"
    answer = await _asked(session, _GET_SECRET, pb.GetSecretRequest(ID=id), pb.GetSecretResponse, doing)
    if answer is None:
        return None
    if len(answer.data) > MAX_SECRET:
        raise InvalidParameter(f"secret {id}: invalid secret size {len(answer.data)}")
    return answer.data


async def credentials(session: Session, host: str) -> tuple[str, str] | None:
    """User and password for a registry; an empty user comes with an identity token.

    None if the client has none. Raises System, Unavailable.
    """
    asked, doing = pb.CredentialsRequest(Host=host), f"credentials for {host}"
    answer = await _asked(session, _CREDENTIALS, asked, pb.CredentialsResponse, doing)
    return (answer.Username, answer.Secret) if answer is not None and answer.Secret else None


async def _asked(session: Session, name: str, request: Message, reply: type[M], doing: str) -> M | None:
    """The answer to a question that a client may have no answer to; None then. Raises System, Unavailable."""
    if not session.supports(name):
        return None
    method = UnaryUnaryMethod(session.channel, name, type(request), reply)
    try:
        return await method(request)
    except GRPCError as exc:
        if exc.status in (Status.NOT_FOUND, Status.UNIMPLEMENTED):
            return None
        raise translate(exc, doing) from exc
    except BROKEN as exc:
        raise translate(exc, doing) from exc


async def has_agent(session: Session, id: str) -> bool:
    """Whether the client forwards an agent of that id. Raises Unavailable."""
    if not session.supports(_CHECK_AGENT) or not session.supports(_FORWARD_AGENT):
        return False
    method = UnaryUnaryMethod(session.channel, _CHECK_AGENT, pb.CheckAgentRequest, pb.Empty)
    try:
        await method(pb.CheckAgentRequest(ID=id))
    except GRPCError:
        return False
    except BROKEN as exc:
        raise translate(exc, f"ssh agent {id}") from exc
    return True


@contextlib.asynccontextmanager
async def forwarded_agent(
    session: Session, id: str, place: Path, owner: tuple[int, int], mode: int
) -> AsyncIterator[Path]:
    """A socket in the directory `place` that leads to the client's agent, as long as the context is open.

    Raises OSError if there can be none.
    """
    path = place / "agent"
    listener = _listen(place, path.name, owner, mode)
    open_connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(open_connections) >= _MOST_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(_forward(session, id, reader, writer), name="ssh-agent")
        open_connections.add(task)
        task.add_done_callback(open_connections.discard)

    server = await asyncio.start_unix_server(accept, sock=listener)
    try:
        yield path
    finally:
        server.close()
        tasks = list(open_connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        path.unlink(missing_ok=True)


def _listen(place: Path, name: str, owner: tuple[int, int], mode: int) -> socket.socket:
    """A listening socket; by its directory's descriptor, since a socket's path may not be long."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    directory = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{name}")
        os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
        os.chmod(name, mode, dir_fd=directory)
        listener.listen(16)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


async def _forward(
    session: Session, id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    method = StreamStreamMethod(session.channel, _FORWARD_AGENT, pb.BytesMessage, pb.BytesMessage)
    try:
        async with method.open(metadata={"buildkit.ssh.id": id}) as stream:
            await stream.send_request()
            outgoing = asyncio.create_task(_to_agent(reader, stream))
            try:
                async for message in stream:
                    writer.write(message.data)
                    await writer.drain()
            finally:
                outgoing.cancel()
                await asyncio.gather(outgoing, return_exceptions=True)
    except BROKEN:
        pass  # Who uses the agent sees the connection end.
    finally:
        writer.close()


async def _to_agent(reader: asyncio.StreamReader, stream: Stream[pb.BytesMessage, pb.BytesMessage]) -> None:
    with contextlib.suppress(ConnectionError):  # Who asked has gone: that ends it as well.
        while data := await reader.read(_CHUNK):
            await stream.send_message(pb.BytesMessage(data=data))
    await stream.end()


async def uploaded(session: Session, path: str) -> AsyncIterator[bytes]:
    """What the client sends as its upload at `path`, in chunks. Raises System, Unavailable."""
    if not session.supports(_PULL):
        raise Unavailable(f"the client's session does not offer {_PULL}")
    method = StreamStreamMethod(session.channel, _PULL, pb.BytesMessage, pb.BytesMessage)
    try:
        metadata = {"urlpath": path, "urlhost": "buildkit-session"}
        async with method.open(metadata=metadata) as stream:
            # Go's server resets a call that it has answered and whose client may still send.
            await stream.send_request(end=True)
            async for message in stream:
                yield message.data
    except BROKEN as exc:
        raise translate(exc, f"upload {path}") from exc
