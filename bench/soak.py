"""A long run: containers made, started, executed in, stopped and removed, while the daemon is watched.

    bench/soak.py [CYCLES] [--at-once N] [--every N]

Prints the daemon's memory, file descriptors, threads and processes at intervals. Fails if they have grown
since the run got going, or if anything of the containers is left on disk or in the kernel.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from engine.survival import left_over, links_of
from harness import Busybox, Client, Longshored
from harness.machine import processes_of, resident

WARM_UP = 0.2
"""The part of the run in which caches and pools may still fill."""
MAY_GROW = 1.05
MAY_GROW_BY = 3 * 2**20
POOL = 4
"""Threads of the pool that come and go with the work."""


@dataclass(frozen=True)
class Look:
    """The daemon at one moment; memory in bytes."""

    cycle: int
    memory: int
    descriptors: int
    threads: int
    processes: int

    def __str__(self) -> str:
        return (
            f"{self.cycle:>7}  {self.memory / 2**20:>7.1f} MB  {self.descriptors:>5} descriptors  "
            f"{self.threads:>3} threads  {self.processes:>3} processes"
        )


def main() -> int:
    """Run the cycles; 1 if something grew or is left over."""
    options = _arguments()
    warm = max(options.every, int(options.cycles * WARM_UP))
    with _daemon() as daemon, ThreadPoolExecutor(options.at_once) as clients:
        looks = [look(daemon, 0)]
        print(looks[0], flush=True)
        while (done := looks[-1].cycle) < options.cycles:
            count = min(options.every, options.cycles - done)
            list(clients.map(lambda _: cycle(daemon), range(count)))
            looks.append(settled_look(daemon, done + count))
            print(looks[-1], flush=True)
        problems = left_over(daemon) + [f"link {name}" for name in links_of(daemon)]
        problems += growth(next(each for each in looks if each.cycle >= warm), looks[-1])
    for problem in problems:
        print(f"soak: {problem}", file=sys.stderr)
    return 1 if problems else 0


def cycle(daemon: Longshored) -> None:
    """One life: with a network, a volume, a log, an exec that is attached and one that is not, and a stop."""
    api = Client(daemon.socket, "1.50", timeout=120)
    script = "trap 'exit 3' TERM; echo begun; while :; do sleep 0.05; done"
    body = {"Image": "busybox", "Cmd": ["sh", "-c", script], "Volumes": {"/data": {}}, "StopTimeout": 20}
    id = api.post("/containers/create", body).expect(201).json["Id"]
    api.post(f"/containers/{id}/start").expect(204)
    with api.stream("GET", f"/containers/{id}/logs?stdout=1&follow=1") as log:
        assert log.read(14)[8:] == b"begun\n"
    made = api.post(f"/containers/{id}/exec", {"Cmd": ["echo", "hi"], "AttachStdout": True}).json["Id"]
    running = api.hijack("POST", f"/exec/{made}/start", {"Detach": False})
    assert running.frames() == [(1, b"hi\n")]
    running.close()
    made = api.post(f"/containers/{id}/exec", {"Cmd": ["true"]}).json["Id"]
    api.post(f"/exec/{made}/start", {"Detach": True}).expect(200)
    api.post(f"/containers/{id}/stop").expect(204)
    assert api.get(f"/containers/{id}/json").json["State"]["ExitCode"] == 3
    api.delete(f"/containers/{id}", v=1).expect(204)


def look(daemon: Longshored, number: int) -> Look:
    """Look at the daemon; processes are all that serve it."""
    process = Path("/proc", str(daemon.pid))
    threads = len(list((process / "task").iterdir()))
    descriptors = len(list((process / "fd").iterdir()))
    return Look(number, resident(daemon.pid), descriptors, threads, len(processes_of(str(daemon.root))))


def settled_look(daemon: Longshored, number: int) -> Look:
    """The same once what the last cycle left behind has had time to go: two looks that agree."""
    before = look(daemon, number)
    while True:
        time.sleep(0.5)
        now = look(daemon, number)
        if astuple(now)[2:] == astuple(before)[2:]:
            return now
        before = now


def growth(before: Look, after: Look) -> list[str]:
    """What has grown more than it may."""
    found = [
        f"{name} grew from {was} to {now}"
        for name, was, now in (
            ("descriptors", before.descriptors, after.descriptors),
            ("threads", before.threads + POOL, after.threads),
            ("processes", before.processes, after.processes),
        )
        if now > was
    ]
    if after.memory > before.memory * MAY_GROW + MAY_GROW_BY:
        found.append(f"memory grew from {before.memory} to {after.memory} bytes")
    return found


@contextmanager
def _daemon() -> Iterator[Longshored]:
    with ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="lsh-soak-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        daemon = Longshored()
        stack.callback(daemon.sweep)
        stack.callback(daemon.destroy)
        daemon.start()
        daemon.load(Busybox.archive(scratch / "busybox.tar"))
        yield daemon


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cycles", type=int, nargs="?", default=1000, help="how many (1000)")
    parser.add_argument("--at-once", type=int, default=2, help="how many beside each other (2)")
    parser.add_argument("--every", type=int, default=50, help="cycles from one look to the next (50)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
