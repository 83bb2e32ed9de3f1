"""Files for the client (FileSend.DiffCopy): a tree that it makes a copy of, or an archive."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from grpclib.client import Stream, StreamStreamMethod

from longshore.buildkit import gomode
from longshore.buildkit.proto import session_pb2 as pb
from longshore.buildkit.sessions import BROKEN, Session, translate
from longshore.buildkit.threads import in_thread
from longshore.errors import System, Unavailable
from longshore.layers.idmap import IdMap
from longshore.linux.openat import Resolve, openat2

_DIFF_COPY = "/moby.filesync.v1.FileSend/DiffCopy"
_CHUNK = 32 << 10
_LARGEST = 1 << 20
"""Bytes of one message; a client's gRPC refuses messages of 4 MB."""
_BATCH = 256
"""Descriptions that are made in one go of a thread."""
_DEEPEST = 256
"""Directories that lie in each other; each is held open."""
_BENEATH = Resolve.BENEATH | Resolve.NO_SYMLINKS

_Send = Stream[pb.Packet, pb.Packet]


async def send_archive(session: Session, exporter: int, chunks: AsyncIterator[bytes]) -> None:
    """Let the client write `chunks` to its file. Raises System, Unavailable."""
    method = _method(session, pb.BytesMessage)
    try:
        async with method.open(metadata=_metadata(exporter)) as stream:
            await stream.send_request()
            async for chunk in chunks:
                for start in range(0, len(chunk), _LARGEST):
                    await stream.send_message(pb.BytesMessage(data=chunk[start : start + _LARGEST]))
            await stream.end()
            while await stream.recv_message() is not None:
                pass
    except BROKEN as exc:
        raise _failure(exc) from exc


async def send_tree(session: Session, exporter: int, root: Path, ids: IdMap) -> None:
    """Let the client copy all that is below `root`; owners are told as a container sees them.

    Raises System, Unavailable.
    """
    method = _method(session, pb.Packet)
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        async with method.open(metadata=_metadata(exporter)) as stream:
            await stream.send_request()
            await _Sender(stream, directory, ids).run()
    except BROKEN as exc:
        raise _failure(exc) from exc
    finally:
        os.close(directory)


def _method(session: Session, kind: Any) -> StreamStreamMethod[Any, Any]:
    if not session.supports(_DIFF_COPY):
        raise Unavailable("the client's session offers no place for files")
    return StreamStreamMethod(session.channel, _DIFF_COPY, kind, kind)


def _metadata(exporter: int) -> dict[str, str]:
    return {"buildkit-attachable-exporter-id": str(exporter)}


def _failure(exc: BaseException) -> Exception:
    if isinstance(exc, OSError) and not isinstance(exc, ConnectionError):
        return System(f"sending files to the client: {exc}")
    return translate(exc, "sending files to the client")


@dataclass
class _File:
    path: str
    may_be_asked: bool
    """Whether it has a content, which was not asked for yet."""


class _Sender:
    def __init__(self, stream: _Send, root: int, ids: IdMap) -> None:
        self._stream = stream
        self._root = root
        self._ids = ids
        self._files: list[_File] = []
        self._links: dict[tuple[int, int], str] = {}

    async def run(self) -> None:
        """Describe everything, then send what is asked for, until the client has all that it wants."""
        asked: asyncio.Queue[int | None] = asyncio.Queue()
        listening = asyncio.create_task(self._listen(asked), name="filesend-listen")
        try:
            await self._describe()
            while (number := await asked.get()) is not None and not listening.done():
                await self._send_file(number)
            await listening
            await self._stream.send_message(pb.Packet(type=pb.Packet.PACKET_FIN), end=True)
            while await self._stream.recv_message() is not None:
                pass
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, asked: asyncio.Queue[int | None]) -> None:
        """Until the client is done."""
        try:
            async for packet in self._stream:
                if packet.type == pb.Packet.PACKET_REQ:
                    # Each once, so that no more is waiting than there are files.
                    if len(self._files) <= packet.ID or not self._files[packet.ID].may_be_asked:
                        raise System(f"invalid file id {packet.ID}")
                    self._files[packet.ID].may_be_asked = False
                    asked.put_nowait(packet.ID)
                elif packet.type == pb.Packet.PACKET_ERR:
                    told = packet.data.decode("utf-8", "replace")
                    raise System(f"error from receiver: {told}")
                elif packet.type == pb.Packet.PACKET_FIN:
                    return
            await self._stream.end()
            await self._stream.recv_trailing_metadata()  # raises what the client ended it with
            raise ConnectionResetError("the client ended before all was sent")
        finally:
            asked.put_nowait(None)

    async def _describe(self) -> None:
        walk = self._walk(self._root, "")
        try:
            while batch := await in_thread(lambda: list(islice(walk, _BATCH))):
                for described in batch:
                    await self._stream.send_message(pb.Packet(type=pb.Packet.PACKET_STAT, stat=described))
        finally:
            walk.close()  # with the directories that it holds open
        await self._stream.send_message(pb.Packet(type=pb.Packet.PACKET_STAT))

    def _walk(self, directory: int, prefix: str) -> Generator[pb.Stat]:
        if prefix.count("/") > _DEEPEST:
            raise System(f"{prefix}: directories lie too deep to be sent")
        for base in sorted(os.listdir(directory), key=os.fsencode):
            found = os.stat(base, dir_fd=directory, follow_symlinks=False)
            path = f"{prefix}{base}"
            yield self._stat(directory, base, path, found)
            if stat.S_ISDIR(found.st_mode):
                inside = os.open(
                    base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory
                )
                try:
                    yield from self._walk(inside, f"{path}/")
                finally:
                    os.close(inside)

    def _stat(self, directory: int, base: str, path: str, found: os.stat_result) -> pb.Stat:
        uid, gid = self._ids.to_container(found.st_uid, found.st_gid)
        mode = gomode.from_stat(found.st_mode) & ~gomode.SOCKET
        described = pb.Stat(path=os.fsencode(path), mode=mode, uid=uid, gid=gid, modTime=found.st_mtime_ns)
        regular = stat.S_ISREG(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            described.linkname = os.fsencode(os.readlink(base, dir_fd=directory))
        elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            described.devmajor, described.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
        elif regular:
            first = self._links.setdefault((found.st_dev, found.st_ino), path) if found.st_nlink > 1 else path
            if first != path:
                described.linkname = os.fsencode(first)
            else:
                described.size = found.st_size
        # A socket is sent as an empty file, as BuildKit does.
        self._files.append(_File(path, regular or stat.S_ISSOCK(found.st_mode)))
        return described

    async def _send_file(self, number: int) -> None:
        file = self._open(self._files[number].path)
        if file is not None:
            try:
                await self._send_content(number, file)
            finally:
                os.close(file)
        await self._stream.send_message(pb.Packet(type=pb.Packet.PACKET_DATA, ID=number))

    async def _send_content(self, number: int, file: int) -> None:
        while data := await in_thread(lambda: os.read(file, _CHUNK * 8)):
            for start in range(0, len(data), _CHUNK):
                part = data[start : start + _CHUNK]
                packet = pb.Packet(type=pb.Packet.PACKET_DATA, ID=number, data=part)
                await self._stream.send_message(packet)

    def _open(self, path: str) -> int | None:
        """A descriptor of the file, None for a socket."""
        try:
            return openat2(self._root, path, os.O_RDONLY | os.O_NONBLOCK, 0, _BENEATH)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return None
            raise
