"""Attaching to real pipes: input, output, their ends, and clients that do not keep up."""

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from logs.support import CONTAINER, Client, Process, demultiplex, driver_in

from longshore.errors import InvalidParameter
from longshore.logs.detach import DetachFilter, parse_detach_keys
from longshore.logs.pump import LogPump
from longshore.logs.streams import ContainerStreams

ALL = {"stdin": True, "stdout": True, "stderr": True, "tty": False}


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


def test_attach_before_the_start_misses_nothing(pump: LogPump) -> None:
    async def test() -> None:
        streams, process, client = ContainerStreams(pump, tty=False), Process(), Client()
        attach = asyncio.ensure_future(streams.attach(client, **ALL, stdin_once=True))
        await asyncio.sleep(0.01)
        os.write(process.stdout, b"out\n")
        os.write(process.stderr, b"err\n")
        process.exit()
        streams.start(*process.ends())
        assert await attach == "container-exit"
        assert sorted(demultiplex(bytes(client.received))) == [(1, b"out\n"), (2, b"err\n")]
        assert client.closed.is_set()
        assert await streams.drained(5)

    run(test)


def test_half_close_closes_stdin_only_once(pump: LogPump) -> None:
    async def test() -> None:
        streams, process, client = ContainerStreams(pump, tty=False), Process(), Client()
        closed = asyncio.Event()

        async def on_closed() -> None:
            closed.set()

        streams.on_stdin_closed = on_closed
        client.send(b"before the start ")
        client.half_close()
        attach = asyncio.ensure_future(streams.attach(client, **ALL, stdin_once=True))
        await asyncio.sleep(0.01)
        streams.start(*process.ends())
        assert await process.read_stdin() == b"before the start "
        assert await process.read_stdin() == b""
        await closed.wait()
        os.write(process.stdout, b"late\n")
        await client.has(b"late")
        assert not attach.done()
        process.exit()
        assert await attach == "container-exit"

    run(test)


def test_half_close_of_a_lasting_stdin_ends_the_attach_alone(pump: LogPump) -> None:
    async def test() -> None:
        streams, process, client, other = ContainerStreams(pump, tty=False), Process(), Client(), Client()
        streams.start(*process.ends())
        attach = asyncio.ensure_future(streams.attach(client, **ALL))
        staying = asyncio.ensure_future(streams.attach(other, **ALL))
        client.half_close()
        assert await attach == "eof"
        other.send(b"still open")
        assert await process.read_stdin() == b"still open"
        process.exit()
        assert await staying == "container-exit"

    run(test)


def test_half_close_without_stdin_changes_nothing(pump: LogPump) -> None:
    async def test() -> None:
        streams, process, client = ContainerStreams(pump, tty=False), Process(), Client()
        streams.start(*process.ends())
        attach = asyncio.ensure_future(streams.attach(client, **(ALL | {"stdin": False, "stderr": False})))
        client.half_close()
        await asyncio.sleep(0.01)
        os.write(process.stderr, b"unwanted\n")
        os.write(process.stdout, b"wanted\n")
        process.exit()
        assert await attach == "container-exit"
        assert demultiplex(bytes(client.received)) == [(1, b"wanted\n")]

    run(test)


def test_detach_keys_on_a_terminal(pump: LogPump) -> None:
    async def test() -> None:
        streams, process, client = ContainerStreams(pump, tty=True), Process(), Client()
        streams.start(process.stdin, process.stdout_read, None)
        attach = asyncio.ensure_future(streams.attach(client, **(ALL | {"tty": True})))
        await asyncio.sleep(0.01)
        os.write(process.stdout, b"prompt$ ")
        await client.has(b"prompt$ ")
        assert bytes(client.received) == b"prompt$ "
        client.send(b"ls\x10")
        assert await process.read_stdin() == b"ls"
        client.send(b"\x11")
        assert await attach == "detached"
        process.exit()
        os.close(process.stderr_read)
        assert await streams.drained(5)

    run(test)


def test_detach_keys_are_parsed_and_found() -> None:
    assert parse_detach_keys("") == b"\x10\x11"
    assert parse_detach_keys("ctrl-a,b") == b"\x01b"
    assert parse_detach_keys("ctrl-@,ctrl-[,DEL") == b"\x00\x1b\x7f"
    with pytest.raises(InvalidParameter, match=r"^Invalid detach keys \(ctrl-!,a\) provided$"):
        parse_detach_keys("ctrl-!,a")
    keys = DetachFilter(b"\x10\x11")
    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.feed(b"b\x10\x10") == (b"\x10b\x10", False)
    assert keys.feed(b"\x11rest") == (b"", True)


def test_a_failed_start_lets_go_of_clients(pump: LogPump) -> None:
    async def test() -> None:
        streams, client = ContainerStreams(pump, tty=False), Client()
        client.send(b"never read")
        attach = asyncio.ensure_future(streams.attach(client, **ALL))
        await asyncio.sleep(0.01)
        streams.stop()
        assert await attach == "container-exit"

    run(test)


def test_streams_survive_a_restart(pump: LogPump, tmp_path: Path) -> None:
    async def test() -> None:
        streams = ContainerStreams(pump, tty=False)
        for word in (b"first\n", b"second\n"):
            process, client = Process(), Client()
            attach = asyncio.ensure_future(streams.attach(client, **ALL))
            await asyncio.sleep(0.01)
            streams.start(*process.ends(), driver_in(tmp_path))
            client.send(b"in")
            assert await process.read_stdin() == b"in"
            os.write(process.stdout, word)
            process.exit()
            assert await attach == "container-exit"
            assert await streams.drained(5)
            assert word in client.received
        lines = (tmp_path / f"{CONTAINER}-json.log").read_text().splitlines()
        assert [json.loads(line)["log"] for line in lines] == ["first\n", "second\n"]

    run(test)


def test_replay_comes_first(pump: LogPump) -> None:
    async def old() -> AsyncIterator[bytes]:
        yield b"old "

    async def test() -> None:
        streams, process, client = ContainerStreams(pump, tty=True), Process(), Client()
        streams.start(process.stdin, process.stdout_read, None)
        attach = asyncio.ensure_future(streams.attach(client, **(ALL | {"tty": True}), replay=old()))
        await client.has(b"old ")
        await asyncio.sleep(0.01)
        os.write(process.stdout, b"new")
        process.exit()
        os.close(process.stderr_read)
        assert await attach == "container-exit"
        assert bytes(client.received) == b"old new"

    run(test)


def _write_all(fd: int, size: int, done: threading.Event) -> None:
    block = (b"x" * 99 + b"\n") * 1000
    for _ in range(size // len(block)):
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(fd, rest) :]
    done.set()


def test_a_slow_client_holds_back_its_own_container_only(pump: LogPump, tmp_path: Path) -> None:
    async def test() -> None:
        slow, other, stuck = ContainerStreams(pump, tty=False), ContainerStreams(pump, tty=False), Client()
        process, neighbour, client = Process(), Process(), Client()
        slow.start(*process.ends(), driver_in(tmp_path))
        other.start(*neighbour.ends())
        stuck.may_write.clear()
        attach = asyncio.ensure_future(slow.attach(stuck, **(ALL | {"stdin": False})))
        attached = asyncio.ensure_future(other.attach(client, **ALL))
        await asyncio.sleep(0.01)
        done = threading.Event()
        writer = threading.Thread(target=_write_all, args=(process.stdout, 8_000_000, done))
        writer.start()
        await asyncio.sleep(0.2)
        assert not done.is_set()
        began = time.monotonic()
        os.write(neighbour.stdout, b"quick\n")
        await client.has(b"quick")
        assert time.monotonic() - began < 0.3
        # It takes nothing for longer than the pump's patience: the container goes on without it.
        assert await attach == "eof"
        await asyncio.to_thread(writer.join, 10)
        assert done.is_set()
        process.exit()
        assert await slow.drained(10)
        with (tmp_path / f"{CONTAINER}-json.log").open("rb") as log:
            assert sum(1 for _ in log) == 80_000
        neighbour.exit()
        assert await attached == "container-exit"

    run(test)


def test_a_client_that_catches_up_gets_everything(pump: LogPump) -> None:
    async def test() -> None:
        streams, process, client = ContainerStreams(pump, tty=False), Process(), Client()
        streams.start(*process.ends())
        client.may_write.clear()
        attach = asyncio.ensure_future(streams.attach(client, **(ALL | {"multiplex": False})))
        await asyncio.sleep(0.01)
        writer = threading.Thread(target=_write_all, args=(process.stdout, 8_000_000, threading.Event()))
        writer.start()
        await asyncio.sleep(0.2)
        client.may_write.set()
        await asyncio.to_thread(writer.join, 10)
        process.exit()
        assert await attach == "container-exit"
        assert len(client.received) == 8_000_000

    run(test)


def test_drained_gives_up_on_a_writer_that_stays(pump: LogPump) -> None:
    async def test() -> None:
        streams, process = ContainerStreams(pump, tty=False), Process()
        streams.start(*process.ends())
        assert not await streams.drained(0.05)
        streams.stop()
        assert await streams.drained(5)
        process.exit()

    run(test)


def test_stdin_waits_for_room(pump: LogPump) -> None:
    async def test() -> None:
        streams, process = ContainerStreams(pump, tty=False), Process()
        streams.start(*process.ends())
        writing = asyncio.ensure_future(streams.write_stdin(b"y" * 1_000_000))
        got = 0
        while got < 1_000_000:
            got += len(await process.read_stdin())
        await writing
        await streams.close_stdin()
        assert await process.read_stdin() == b""
        with pytest.raises(BrokenPipeError):
            await streams.write_stdin(b"more")
        process.exit()
        assert await streams.drained(5)

    run(test)
