"""What carrying and reading logs costs: CPU and wall seconds for 100 MB through a real pipe, and back.

Run: PYTHONPATH=src python bench/logs_micro.py
"""

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from longshore.logs.driver import create_log_driver
from longshore.logs.info import LogInfo, log_path
from longshore.logs.pump import LogPump
from longshore.logs.reader import LogSource, ReadOptions, read_logs
from longshore.logs.streams import ContainerStreams

SIZE = 100_000_000
LINES = {
    "80 plain characters": b"x" * 79 + b"\n",
    "quotes, tabs, brackets": b'2024-01-01 INFO some "quoted" text with\ttabs <angles> and /a/b/c 12345\n',
}


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(directory: Path, name: str, label: str, line: bytes) -> None:
    path = log_path(name, directory, "c" * 64)
    assert path is not None
    info = LogInfo(container_id="c" * 64, container_name="/bench", log_path=path)
    options = {} if name == "json-file" else {"max-size": "1g", "compress": "false"}
    pump = LogPump()
    streams = ContainerStreams(pump, tty=False)
    stdout, writing_end = os.pipe()
    began, used = time.perf_counter(), cpu()
    streams.start(None, stdout, None, create_log_driver(name, options, info))
    block = line * (65536 // len(line))
    writer = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import os\nb = {block!r}\nfor _ in range({SIZE // len(block)}): os.write(1, b)",
        stdout=writing_end,
    )
    os.close(writing_end)
    late = 0.0
    draining = asyncio.ensure_future(streams.drained())
    while not draining.done():
        tick = time.perf_counter()
        await asyncio.sleep(0.005)
        late = max(late, time.perf_counter() - tick - 0.005)
    await writer.wait()
    print(
        f"{name:10} {label:24} write {cpu() - used:.2f} s CPU, {time.perf_counter() - began:.2f} s; "
        f"the loop was late by at most {late * 1000:.1f} ms"
    )
    pump.close()
    for what, more in (("all", {}), ("timestamps", {"timestamps": True}), ("tail 10", {"tail": 10})):
        began, used, got = time.perf_counter(), cpu(), 0
        async for chunk in read_logs(LogSource(name, path), ReadOptions(**more), multiplex=True):
            got += len(chunk)
        took = f"{cpu() - used:.3f} s CPU, {time.perf_counter() - began:.2f} s"
        print(f"{'':35} read {what:10} {got:>11} bytes: {took}")


def main() -> None:
    for name in ("json-file", "local"):
        for label, line in LINES.items():
            with tempfile.TemporaryDirectory() as directory:
                asyncio.run(measure(Path(directory), name, label, line))


if __name__ == "__main__":
    subprocess.run(["sync"], check=True)
    main()
