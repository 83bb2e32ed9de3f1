"""Files of the client, synchronized into a directory (FileSync.DiffCopy, fsutil's protocol).

The client describes every file, in the order of a walk; we ask for the content of those that have any, and
it comes in pieces, that of several files mixed. What the client says is believed in nothing: a description
may lead nowhere but to a place below the directory, whose parent it described as a directory before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

from grpclib.client import Stream, StreamStreamMethod
from h2.exceptions import H2Error

from longshore.buildkit import gomode
from longshore.buildkit.proto import session_pb2 as pb
from longshore.buildkit.sessions import BROKEN, Session, translate
from longshore.buildkit.threads import in_thread
from longshore.errors import InvalidParameter, Unavailable
from longshore.layers.copying import CopyExtractor
from longshore.layers.extract import write_all
from longshore.layers.idmap import IdMap
from longshore.layers.tarstream import (
    BLOCK_DEVICE,
    CHAR,
    DIRECTORY,
    FIFO,
    LINK,
    REGULAR,
    SYMLINK,
    TarEntry,
    refusing_damage,
)
from longshore.threads import settled

_DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
_MOST_DESCRIBED = 512 << 20
"""Bytes of all descriptions together, which are held in memory."""
_DESCRIBED = 300
"""Bytes that each takes there besides what came."""
_AT_ONCE = 64
"""Files that are asked for and not yet here."""
_AHEAD = 4 << 20
"""Bytes that may wait for the disk."""
_DEEPEST = 256

_Sync = Stream[pb.Packet, pb.Packet]


@dataclass(frozen=True)
class Filters:
    """Which files of the directory are wanted; patterns are those of .dockerignore.

    `follow`: only these paths, with where their links lead.
    """

    exclude: Collection[str] = ()
    follow: Collection[str] = ()


@dataclass(frozen=True)
class Announced:
    """What is about to come: how many files, and bytes as the client says."""

    files: int
    size: int


async def receive(
    session: Session,
    name: str,
    filters: Filters,
    prepare: Callable[[Announced], Path],
    ids: IdMap,
    progress: Callable[[int], None],
) -> None:
    """Fill a directory with what the client calls `name`; owners are those that `ids` give.

    `prepare` says where, once it is known how much comes, and is called in a thread. `progress` is told how
    many bytes have come. Raises InvalidParameter for what may not be, System, Unavailable.
    """
    if not session.supports(_DIFF_COPY):
        raise Unavailable("no local sources enabled: the client's session offers no files")
    method = StreamStreamMethod(session.channel, _DIFF_COPY, pb.Packet, pb.Packet)
    metadata = [("dir-name", name)]
    metadata += _encoded("exclude-patterns", filters.exclude) + _encoded("followpaths", filters.follow)
    try:
        async with method.open(metadata=metadata) as stream:
            await stream.send_request()
            try:
                entries = await _described(stream, progress)
                directory = await in_thread(lambda: prepare(_announced(entries)))
                await _Receiver(stream, entries, directory, ids, progress).run()
            except (InvalidParameter, OSError) as exc:
                with contextlib.suppress(*BROKEN):
                    told = str(exc).encode("utf-8", "replace")
                    await stream.send_message(pb.Packet(type=pb.Packet.PACKET_ERR, data=told), end=True)
                    await stream.cancel()
                raise
    except InvalidParameter:
        raise
    except BROKEN as exc:
        if isinstance(exc, OSError) and not isinstance(exc, ConnectionError):
            raise  # our disk's
        raise translate(exc, f"reading {name} of the client") from exc


async def _described(stream: _Sync, progress: Callable[[int], None]) -> list[TarEntry]:
    """All descriptions, in order: a file is asked for by its place among them."""
    entries: list[TarEntry] = []
    order = _Order()
    size = 0
    while True:
        packet = await _next(stream)
        if packet.type != pb.Packet.PACKET_STAT:
            raise InvalidParameter("the client sent content that nobody asked for")
        if not packet.HasField("stat"):
            return entries
        size += packet.ByteSize()
        if size + len(entries) * _DESCRIBED > _MOST_DESCRIBED:
            raise InvalidParameter("the client describes more files than can be held in memory")
        entry = _entry(packet.stat)
        order.check(entry)
        entries.append(entry)
        progress(size)


async def _next(stream: _Sync) -> pb.Packet:
    packet = await stream.recv_message()
    if packet is None:
        with contextlib.suppress(H2Error):
            await stream.end()
        await stream.recv_trailing_metadata()  # raises what the client ended it with
        raise ConnectionResetError("the client ended before all was sent")
    if packet.type == pb.Packet.PACKET_ERR:
        raise InvalidParameter(f"error from sender: {packet.data.decode('utf-8', 'replace')}")
    return packet


class _Order:
    """Descriptions come as a walk meets the files: nothing twice, nothing without its directory."""

    def __init__(self) -> None:
        self._above: list[tuple[str, str]] = [("", "")]
        """The directories that the last one lies in, each with the last name met in it."""

    def check(self, entry: TarEntry) -> None:
        """Raises InvalidParameter."""
        parent, _, base = entry.name.rpartition("/")
        if base in ("", ".", "..") or "\0" in entry.name or entry.name.count("/") > _DEEPEST:
            raise InvalidParameter(f"invalid path {entry.name!r} from the client")
        while self._above[-1][0] != parent:
            self._above.pop()
            if not self._above:
                raise InvalidParameter(f"changes out of order: {entry.name!r} has no directory")
        last = self._above[-1][1]
        if last and os.fsencode(last) >= os.fsencode(base):
            raise InvalidParameter(f"changes out of order: {entry.name!r} after {last!r}")
        self._above[-1] = (parent, base)
        if entry.type == DIRECTORY:
            self._above.append((entry.name, ""))


def _entry(stat: pb.Stat) -> TarEntry:
    mode = stat.mode
    kind = REGULAR
    if mode & gomode.DIRECTORY:
        kind = DIRECTORY
    elif mode & gomode.SYMLINK:
        kind = SYMLINK
    elif mode & gomode.DEVICE:
        kind = CHAR if mode & gomode.CHAR_DEVICE else BLOCK_DEVICE
    elif mode & gomode.NAMED_PIPE:
        kind = FIFO
    elif stat.linkname:
        kind = LINK
    return TarEntry(
        os.fsdecode(stat.path),
        kind,
        gomode.permissions(mode),
        stat.uid,
        stat.gid,
        0,
        stat.modTime,
        os.fsdecode(stat.linkname),
        max(0, stat.devmajor),
        max(0, stat.devminor),
        dict(stat.xattrs),
        real_size=max(0, stat.size),
    )


def _announced(entries: list[TarEntry]) -> Announced:
    return Announced(len(entries), sum(entry.real_size for entry in entries if entry.type == REGULAR))


class _Receiver:
    """Makes what was described, and asks for contents."""

    def __init__(
        self,
        stream: _Sync,
        entries: list[TarEntry],
        directory: Path,
        ids: IdMap,
        progress: Callable[[int], None],
    ) -> None:
        self._stream = stream
        self._entries = entries
        self._tree = CopyExtractor(directory, ids, "/")
        self._progress = progress
        self._asked: set[int] = set()
        self._open: dict[int, int] = {}
        self._arrived: list[tuple[int, bytes]] = []
        self._waiting = 0
        self._all_arrived = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Until all is there, and the client knows it."""
        try:
            await in_thread(lambda: self._make({DIRECTORY, SYMLINK, CHAR, BLOCK_DEVICE, FIFO}))
            await self._contents()
            await in_thread(lambda: self._make({LINK}))
        except BaseException as exc:
            for file in self._open.values():
                os.close(file)
            self._tree.__exit__(type(exc))
            raise
        await in_thread(lambda: self._tree.__exit__(None))
        await self._stream.send_message(pb.Packet(type=pb.Packet.PACKET_FIN), end=True)
        while await self._stream.recv_message() is not None:
            pass

    async def _contents(self) -> None:
        writing = asyncio.create_task(self._write(), name="filesync-write")
        try:
            await self._take(writing)
        except BaseException:
            self._arrived.clear()
            raise
        finally:
            self._all_arrived = True
            self._changed.set()
            # What a thread is in the middle of goes on: nothing may be closed under it.
            await settled([writing])
        writing.result()

    async def _take(self, writing: asyncio.Task[None]) -> None:
        wanted = iter([number for number, entry in enumerate(self._entries) if entry.type == REGULAR])
        await self._ask(wanted)
        received = 0
        while self._asked:
            packet = await _next(self._stream)
            if packet.type != pb.Packet.PACKET_DATA or packet.ID not in self._asked:
                raise InvalidParameter(f"invalid file request {packet.ID}")
            self._arrived.append((packet.ID, packet.data))
            self._waiting += len(packet.data)
            self._changed.set()
            received += len(packet.data)
            self._progress(received)
            if not packet.data:
                self._asked.discard(packet.ID)
                await self._ask(wanted)
            while self._waiting > _AHEAD and not writing.done():
                self._room.clear()
                await self._room.wait()
            if writing.done():
                return

    async def _ask(self, wanted: Iterator[int]) -> None:
        while len(self._asked) < _AT_ONCE and (number := next(wanted, None)) is not None:
            self._asked.add(number)
            await self._stream.send_message(pb.Packet(type=pb.Packet.PACKET_REQ, ID=number))

    async def _write(self) -> None:
        try:
            while not self._all_arrived or self._arrived:
                await self._changed.wait()
                self._changed.clear()
                batch, self._arrived = self._arrived, []
                await in_thread(lambda batch=batch: self._apply(batch))  # type: ignore[misc]
                self._waiting -= sum(len(data) for _, data in batch)
                self._room.set()
        finally:
            self._room.set()

    def _apply(self, batch: list[tuple[int, bytes]]) -> None:
        for number, data in batch:
            entry = self._entries[number]
            file = self._open.get(number)
            if file is None:
                file = self._open[number] = self._tree.begin_file(entry)
            if data:
                write_all(file, data)
                continue
            with refusing_damage(entry):
                self._tree.finish_file(entry, file)
            os.close(self._open.pop(number))

    def _make(self, kinds: set[bytes]) -> None:
        for entry in self._entries:
            if entry.type in kinds:
                with refusing_damage(entry):
                    self._tree.add(entry, b"")


def _encoded(key: str, values: Iterable[str]) -> list[tuple[str, str]]:
    """Metadata of a list; other than printable ASCII is escaped, and that it is, is told."""
    found = list(values)
    if all(value.isascii() and value.isprintable() for value in found):
        return [(key, value) for value in found]
    escaped = [(key, quote_plus(value, errors="surrogateescape")) for value in found]
    return [*escaped, (f"{key}-encoded", "1")]
