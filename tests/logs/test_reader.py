"""Reading back what was logged."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from logs.support import CONTAINER, Process, demultiplex, driver_in, read_all, source_in

from longshore.errors import NotImplementedHere
from longshore.logs.driver import LogDriver
from longshore.logs.pump import LogPump
from longshore.logs.reader import LogSource
from longshore.logs.streams import ContainerStreams

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def log_lines(driver: LogDriver, first: int, last: int) -> None:
    for number in range(first, last):
        driver.log("stdout", b"line %d\n" % number, NOW + number * SECOND, False)


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, last))


@pytest.mark.parametrize("name", ["json-file", "local"])
@pytest.mark.parametrize("options", [{}, {"max_size": "1k", "max_file": "90"}])
def test_tail_since_until(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    async def test() -> None:
        driver = driver_in(tmp_path, name, **options, compress="false")
        log_lines(driver, 0, 200)
        driver.close()
        source = source_in(tmp_path, name)
        assert await read_all(source) == lines(0, 200)
        for count in (0, 1, 2, 17, 199, 200, 500):
            assert await read_all(source, tail=count) == lines(max(0, 200 - count), 200)
        assert await read_all(source, since=NOW + 190 * SECOND) == lines(190, 200)
        assert await read_all(source, until=NOW + 3 * SECOND) == lines(0, 4)
        assert await read_all(source, since=NOW + 5 * SECOND + 1, until=NOW + 7 * SECOND) == lines(6, 8)
        assert await read_all(source, stdout=False) == b""
        stamped = await read_all(source, tail=1, timestamps=True)
        assert stamped == b"2023-11-14T22:16:39.000000000Z line 199\n"

    run(test)


def test_frames_details_and_pieces(tmp_path: Path) -> None:
    async def test() -> None:
        driver = driver_in(tmp_path, tag="a b")
        driver.log("stdout", b"one\n\n", NOW + 120, False)
        driver.log("stderr", b"x" * 16384, NOW, True)
        driver.log("stderr", "ü\n".encode(), NOW, False)
        driver.close()
        source = source_in(tmp_path)
        expected = [(1, b"one\n"), (1, b"\n"), (2, b"x" * 16384), (2, "ü\n".encode())]
        assert demultiplex(await read_all(source, multiplex=True)) == expected
        first = demultiplex(await read_all(source, multiplex=True, details=True, timestamps=True))[0]
        assert first == (1, b"2023-11-14T22:13:20.000000120Z tag=a+b one\n")

    run(test)


@pytest.mark.parametrize("name", ["json-file", "local"])
def test_tail_reads_compressed_files(tmp_path: Path, name: str) -> None:
    async def test() -> None:
        driver = driver_in(tmp_path, name, max_size="2k", max_file="50", compress="true")
        log_lines(driver, 0, 300)
        deadline = time.monotonic() + 10
        directory = source_in(tmp_path, name).path.parent
        while len(list(directory.glob("*.gz"))) < len(list(directory.iterdir())) - 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        driver.close()
        source = source_in(tmp_path, name)
        assert await read_all(source) == lines(0, 300)
        for count in (1, 100, 250, 400):
            assert await read_all(source, tail=count) == lines(max(0, 300 - count), 300)

    run(test)


@pytest.mark.parametrize("name", ["json-file", "local"])
@pytest.mark.parametrize("options", [{}, {"max_size": "1k", "max_file": "1000", "compress": "true"}])
def test_follow_across_rotation_until_the_end(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    async def test() -> None:
        driver = driver_in(tmp_path, name, **(options or {"compress": "false"}))
        log_lines(driver, 0, 10)
        following = asyncio.ensure_future(read_all(driver, follow=True, tail=5))
        await asyncio.sleep(0.05)

        def write() -> None:
            for start in range(10, 1000, 10):
                log_lines(driver, start, start + 10)
                if start % 100 == 0:
                    time.sleep(0.005)
            driver.close()

        await asyncio.to_thread(write)
        assert await following == lines(5, 1000)

    run(test)


def test_follow_ends_at_until(tmp_path: Path) -> None:
    async def test() -> None:
        driver = driver_in(tmp_path)
        began = time.monotonic()
        assert await read_all(driver, follow=True, until=time.time_ns() + SECOND // 10) == b""
        assert time.monotonic() - began < 5
        driver.close()

    run(test)


def test_without_follow_reading_ends_at_what_was_there(tmp_path: Path) -> None:
    async def test() -> None:
        driver = driver_in(tmp_path)
        log_lines(driver, 0, 10)
        assert await read_all(driver) == lines(0, 10)
        assert await read_all(source_in(tmp_path), follow=True) == lines(0, 10)
        driver.close()

    run(test)


def test_truncated_while_followed(tmp_path: Path) -> None:
    async def test() -> None:
        driver = driver_in(tmp_path)
        log_lines(driver, 0, 10)
        following = asyncio.ensure_future(read_all(driver, follow=True))
        await asyncio.sleep(0.1)
        os.truncate(tmp_path / f"{CONTAINER}-json.log", 0)
        log_lines(driver, 10, 12)
        await asyncio.sleep(0.1)
        driver.close()
        assert await following == lines(0, 12)

    run(test)


_WRITER = """
import sys
from pathlib import Path
from logs.support import driver_in
driver = driver_in(Path(sys.argv[1]), sys.argv[2], compress="false")
number = 0
while True:
    driver.log("stdout", b"".join(b"line %d\\n" % n for n in range(number, number + 500)), number, False)
    number += 500
"""


def _start_writer(directory: Path, name: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", _WRITER, str(directory), name], env=environment)


@pytest.mark.parametrize("name", ["json-file", "local"])
def test_a_killed_writer_leaves_a_readable_log(tmp_path: Path, name: str) -> None:
    async def test() -> None:
        writer = _start_writer(tmp_path, name)
        await asyncio.sleep(0.7)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        source = source_in(tmp_path, name)
        assert source.path is not None
        newest = source.path
        # The kernel finishes a write that has begun; a power failure would not.
        os.truncate(newest, newest.stat().st_size - 7)
        kept = (await read_all(source)).splitlines()
        assert kept
        first = int(kept[0].split()[1])
        assert kept == [b"line %d" % number for number in range(first, first + len(kept))]
        driver = driver_in(tmp_path, name, compress="false")
        driver.log("stdout", b"again\n", NOW, False)
        driver.close()
        assert (await read_all(source)).splitlines() == [*kept, b"again"]
        assert await read_all(source, tail=1) == b"again\n"

    run(test)


def test_fifty_megabytes_go_through_whole(pump: LogPump, tmp_path: Path) -> None:
    async def test() -> None:
        streams, process = ContainerStreams(pump, tty=False), Process()
        driver = driver_in(tmp_path)
        streams.start(*process.ends(), driver)
        line = b'0123456789 some "text" with\ttabs and <brackets> in it, about as long as log lines are\n'
        count = 50_000_000 // len(line)

        def write() -> None:
            with os.fdopen(process.stdout, "wb", buffering=65536) as out:
                for _ in range(count):
                    out.write(line)

        await asyncio.to_thread(write)
        process.exit()
        assert await streams.drained(60)
        assert await read_all(source_in(tmp_path)) == line * count

    run(test)


def test_drivers_that_cannot_be_read() -> None:
    async def test() -> None:
        with pytest.raises(NotImplementedHere, match="configured logging driver does not support reading"):
            await read_all(LogSource("none", None))

    run(test)


def test_a_log_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    run_result: list[bytes] = []

    async def test() -> None:
        run_result.append(await read_all(source_in(tmp_path)))

    run(test)
    assert run_result == [b""]


def test_local_keeps_every_length_and_byte(tmp_path: Path) -> None:
    async def test() -> None:
        driver = driver_in(tmp_path, "local")
        output = [
            b"x" * length for length in (0, 1, 106, 107, 108, 125, 126, 127, 128, 129, 130, 16382, 16383)
        ]
        output += [b"\xff\xfe not utf-8", "grüße".encode()]
        for line in output * 2:
            driver.log("stdout", line + b"\n", NOW, False)
            driver.log("stderr", line, NOW, True)
        driver.close()
        frames = demultiplex(await read_all(source_in(tmp_path, "local"), multiplex=True))
        assert [payload for stream, payload in frames if stream == 1] == [line + b"\n" for line in output] * 2
        assert [payload for stream, payload in frames if stream == 2] == output * 2

    run(test)
