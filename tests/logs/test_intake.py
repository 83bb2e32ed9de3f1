"""A daemon that is killed again and again loses no byte of a log, and writes none twice."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from logs.support import read_all, source_in

BLOCKS = 20_000

_WRITER = """
import os
from logs.test_intake import BLOCKS, block
for number in range(BLOCKS):
    out = block(number)
    for at in range(0, len(out), 700):  # lines come in parts
        os.write(1, out[at : at + 700])
    os.write(2, b"%d\\n" % number)
"""

_DAEMON = """
import asyncio, os, sys
from pathlib import Path
from logs.support import driver_in
from longshore.logs.pump import Keep, LogPump
from longshore.logs.streams import ContainerStreams

async def main(directory, driver, options):
    pump = LogPump()
    streams = ContainerStreams(pump, tty=False)
    ends = [os.open(directory / name, os.O_RDONLY | os.O_NONBLOCK) for name in ("out", "err")]
    kept = directory / "kept"
    streams.start(None, *ends, driver_in(directory / "log", driver, **options), Keep(kept, kept.exists()))
    print("reading", flush=True)
    await streams.drained()
    pump.close()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], dict(pair.split("=") for pair in sys.argv[3:])))
"""


def block(number: int) -> bytes:
    """Ten lines of many lengths, now and then one that is cut into pieces."""
    return b"".join(
        b"%d %s\n" % (n, b"x" * (n * 7919 % 97 if n % 5000 else 40_000))
        for n in range(number * 10, number * 10 + 10)
    )


def start_daemon(directory: Path, driver: str, options: dict[str, str]) -> subprocess.Popen[bytes]:
    given = [f"{name}={value}" for name, value in options.items()]
    daemon = subprocess.Popen(
        [sys.executable, "-c", _DAEMON, directory, driver, *given],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == b"reading\n"
    return daemon


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("options", [{}, {"max_size": "100k", "max_file": "999"}], ids=("whole", "rotated"))
def test_killed_again_and_again(tmp_path: Path, driver: str, options: dict[str, str]) -> None:
    options = {"compress": "false", **({"max_size": "1g"} if driver == "local" else {}), **options}
    (tmp_path / "log").mkdir()
    guards = []  # Hold the pipes open, as a shim does.
    for name in ("out", "err"):
        os.mkfifo(tmp_path / name)
        guards.append(os.open(tmp_path / name, os.O_RDWR))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER], stdout=guards[0], stderr=guards[1], env=environment
    )
    deaths = 0
    while writer.poll() is None:
        with start_daemon(tmp_path, driver, options) as daemon:
            time.sleep(random.random() / 30)  # Whenever it is: that is the point.
            daemon.kill()
        deaths += 1
    with start_daemon(tmp_path, driver, options) as daemon:
        for guard in guards:
            os.close(guard)
        assert daemon.wait(60) == 0
    assert deaths > 2
    assert writer.returncode == 0
    source = source_in(tmp_path / "log", driver)
    out = asyncio.run(read_all(source, stderr=False))
    assert out == b"".join(map(block, range(BLOCKS)))
    err = asyncio.run(read_all(source, stdout=False))
    assert err == b"".join(b"%d\n" % number for number in range(BLOCKS))
    assert not (tmp_path / "kept").exists()
