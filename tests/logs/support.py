"""What the tests of this package share: a container's info, pipes, and a client."""

import asyncio
import contextlib
import os
from pathlib import Path

from longshore.logs.driver import LogDriver, create_log_driver
from longshore.logs.info import LogInfo, log_path
from longshore.logs.reader import LogSource, ReadOptions, read_logs

CONTAINER = "c" * 64


def info(directory: Path, driver: str = "json-file", **more: object) -> LogInfo:
    path = log_path(driver, directory, CONTAINER)
    return LogInfo(container_id=CONTAINER, container_name="/box", log_path=path or directory, **more)


def driver_in(directory: Path, name: str = "json-file", **options: str) -> LogDriver:
    named = {key.replace("_", "-"): value for key, value in options.items()}
    driver = create_log_driver(name, named, info(directory, name))
    assert driver is not None
    return driver


def source_in(directory: Path, name: str = "json-file") -> LogSource:
    return LogSource(name, log_path(name, directory, CONTAINER))


async def read_all(source: LogSource | LogDriver, multiplex: bool = False, **options: object) -> bytes:
    return b"".join([chunk async for chunk in read_logs(source, ReadOptions(**options), multiplex=multiplex)])


def demultiplex(data: bytes) -> list[tuple[int, bytes]]:
    frames = []
    while data:
        end = 8 + int.from_bytes(data[4:8], "big")
        frames.append((data[0], data[8:end]))
        data = data[end:]
    return frames


class Client:
    """A RawConnection held in memory; `slow` stops it taking anything until cleared."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.closed = asyncio.Event()
        self._arrived = asyncio.Event()
        self.may_write = asyncio.Event()
        self.may_write.set()
        self._sent: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, data: bytes) -> None:
        self._sent.put_nowait(data)

    def half_close(self) -> None:
        self._sent.put_nowait(b"")

    async def read(self) -> bytes:
        return await self._sent.get()

    async def write(self, data: bytes) -> None:
        await self.may_write.wait()
        if self.closed.is_set():
            raise ConnectionResetError
        self.received += data
        self._arrived.set()

    async def write_eof(self) -> None:
        pass

    async def close(self) -> None:
        self.closed.set()

    async def has(self, data: bytes) -> None:
        async with asyncio.timeout(10):
            while data not in self.received:
                self._arrived.clear()
                await self._arrived.wait()


class Process:
    """The container's side of its stdio."""

    def __init__(self) -> None:
        self.stdin_read, self.stdin = os.pipe()
        self.stdout_read, self.stdout = os.pipe()
        self.stderr_read, self.stderr = os.pipe()

    def ends(self) -> tuple[int, int, int]:
        """The daemon's ends."""
        return self.stdin, self.stdout_read, self.stderr_read

    async def read_stdin(self) -> bytes:
        async with asyncio.timeout(10):
            return await asyncio.to_thread(os.read, self.stdin_read, 65536)

    def exit(self) -> None:
        for fd in (self.stdin_read, self.stdout, self.stderr):
            with contextlib.suppress(OSError):
                os.close(fd)
