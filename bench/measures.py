"""What is measured, a small function each: seconds, or bytes for memory, by name of the value."""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import images
from harness import Client, Daemon
from harness.machine import descendants, processes_of, resident

TAR = {"Content-Type": "application/x-tar"}
DOCKERFILE = b"""FROM busybox
LABEL who=bench what=build
ENV A=1 B=2
ARG VERSION=1.0
WORKDIR /app
COPY src/1.txt src/2.txt ./first/
RUN echo $A $VERSION > version
COPY src /app/src
RUN find src | wc -l > count
ENV C=3
RUN mkdir -p /data/a /data/b && touch /data/a/f
COPY src/3.txt /data/b/
RUN rm src/1.txt && chmod -R a-w src
USER user
EXPOSE 80 443
VOLUME /data
USER 0
HEALTHCHECK CMD true
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "true"]
"""
MANY_FILES = 3000
SLEEP = {"Image": "busybox", "Cmd": ["sleep", "10000"], "StopSignal": "KILL"}
OUTPUT = 50 * 2**20
MEMORY = "/dev/shm"
"""ext4 looks at all inodes freed in the last minutes for each that it makes, which would drown all else."""
PORTS = 200
LISTED = 500
LOG = 2**30
WATCHED = 50
COPIED = 200 * 2**20


@dataclass(frozen=True)
class Measure:
    """One benchmark. `targets` are the largest ratios to dockerd that are good enough, `limits` the largest
    values of ours, whatever dockerd's are."""

    name: str
    take: Callable[[Daemon], dict[str, float]]
    targets: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    rounds: int = 15
    warm_up: int = 1
    unit: str = "seconds"
    where: str | None = None
    """Directory of the daemons' roots, if that matters."""
    flags: tuple[str, ...] = ()
    """What both daemons are started with."""
    missing: Callable[[], str | None] = lambda: None
    """Tells why it cannot be measured on this machine."""


def _client(daemon: Daemon) -> Client:
    return Client(daemon.socket, "1.41", timeout=300)


def _create(api: Client, **body: Any) -> str:
    return str(api.post("/containers/create", SLEEP | body).expect(201).json["Id"])


def _start(api: Client, container: str) -> float:
    began = time.perf_counter()
    api.post(f"/containers/{container}/start").expect(204)
    return time.perf_counter() - began


def _remove(api: Client, container: str) -> float:
    began = time.perf_counter()
    api.delete(f"/containers/{container}", force=1, v=1).expect(204)
    return time.perf_counter() - began


def create(daemon: Daemon) -> dict[str, float]:
    """POST /containers/create."""
    began = time.perf_counter()
    _create(_client(daemon))
    return {"": time.perf_counter() - began}


def start_on(network: str) -> Callable[[Daemon], dict[str, float]]:
    """POST /containers/x/start on a network of that mode."""

    def start(daemon: Daemon) -> dict[str, float]:
        api = _client(daemon)
        return {"": _start(api, _create(api, HostConfig={"NetworkMode": network}))}

    return start


def run_cli(daemon: Daemon) -> dict[str, float]:
    """`docker run --rm busybox true`, as its user waits for it."""
    began = time.perf_counter()
    daemon.docker("run", "--rm", "busybox", "true")
    return {"": time.perf_counter() - began}


def crowd(daemon: Daemon) -> dict[str, float]:
    """40 starts by 8 clients at once: the time until all are up."""
    api = _client(daemon)
    containers = [_create(api) for _ in range(40)]
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda container: _start(_client(daemon), container), containers))
    took = time.perf_counter() - began
    return {"": took}


def published(daemon: Daemon) -> dict[str, float]:
    """A container with 200 published ports: its start and its removal."""
    api = _client(daemon)
    ports = {f"{port}/tcp": [{"HostPort": str(port)}] for port in range(20000, 20000 + PORTS)}
    container = _create(api, ExposedPorts={port: {} for port in ports}, HostConfig={"PortBindings": ports})
    return {"start": _start(api, container), "remove": _remove(api, container)}


def output(daemon: Daemon) -> dict[str, float]:
    """50 MB of output in lines of 64 bytes: until all is in the log, and reading it back."""
    api = _client(daemon)
    line = "x" * 63
    command = ["sh", "-c", f"yes {line} | head -c {OUTPUT}"]
    container = _create(api, Cmd=command, HostConfig={"NetworkMode": "none"})
    began = time.perf_counter()
    api.post(f"/containers/{container}/start").expect(204)
    api.post(f"/containers/{container}/wait").expect(200)
    last = api.get(f"/containers/{container}/logs", stdout=1, tail=1).body
    wrote = time.perf_counter() - began
    assert last[8:] == f"{line}\n".encode(), "the log is not complete"
    began = time.perf_counter()
    frames = len(api.get(f"/containers/{container}/logs", stdout=1).body)
    read = time.perf_counter() - began
    assert frames >= OUTPUT, "the log is cut short"
    began = time.perf_counter()
    subprocess.run(
        [daemon.docker.program, "logs", container],
        env=daemon.docker.env,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return {"write": wrote, "read": read, "docker logs": time.perf_counter() - began}


def build(daemon: Daemon) -> dict[str, float]:
    """A Dockerfile of 20 steps: without the cache, and with every step cached."""
    files = {f"src/{number}.txt": b"x" * 4096 for number in range(200)}
    return _build(daemon, _context({"Dockerfile": DOCKERFILE, **files}))


def build_many_files(daemon: Daemon) -> dict[str, float]:
    """A context of 3,000 small files that is copied as a whole: without the cache, and cached."""
    files = {
        f"src/{number // 300}/{number // 30}/file-{number}.py": b"%d\n" % number * (1 + number % 400)
        for number in range(MANY_FILES)
    }
    return _build(daemon, _context({"Dockerfile": b"FROM busybox\nWORKDIR /app\nCOPY . .\n", **files}))


def _build(daemon: Daemon, context: bytes) -> dict[str, float]:
    api = _client(daemon)
    took = {}
    for name, query in {"cold": {"nocache": 1}, "cached": {}}.items():
        began = time.perf_counter()
        answer = api.request("POST", "/build", context, query=query | {"t": "bench"}, headers=TAR)
        took[name] = time.perf_counter() - began
        assert b"Successfully built" in answer.expect(200).body, answer.body
    return took


def _context(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def memory(daemon: Daemon) -> dict[str, float]:
    """Resident memory with 40 running containers: the daemon's, and with everything that serves it."""
    api = _client(daemon)
    for _ in range(40):
        _start(api, _create(api))
    time.sleep(1)
    own = resident(daemon.pid)
    serving = {daemon.pid, *processes_of(str(daemon.root)), *descendants(daemon.pid)}
    return {"daemon": own, "with helpers": sum(resident(pid) for pid in serving)}


def listing(daemon: Daemon) -> dict[str, float]:
    """GET /containers/json?all=1 with 500 containers, the median of 20."""
    api = _client(daemon)
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(lambda _: _create(_client(daemon)), range(LISTED)))

    def ask() -> None:
        assert len(api.get("/containers/json", all=1).json) == LISTED

    return {"": _median(ask, 20)}


def tail(daemon: Daemon) -> dict[str, float]:
    """The last 10 lines of a json-file log of 1 GB, the median of 20; the file grew behind the daemon."""
    api = _client(daemon)
    container = _create(api, Cmd=["echo", "x" * 63], HostConfig={"NetworkMode": "none"})
    _start(api, container)
    api.post(f"/containers/{container}/wait").expect(200)
    path = Path(api.get(f"/containers/{container}/json").json["LogPath"])
    line = path.read_bytes()
    block = line * (2**20 // len(line))
    with path.open("ab") as file:
        for _ in range(LOG // len(block)):
            file.write(block)
    asked = 20
    before = _bytes_read(daemon.pid)
    took = _median(lambda: _tail_is_there(api, container), asked)
    assert (_bytes_read(daemon.pid) - before) / asked < 2**22, "the log is read whole"
    return {"": took}


def _tail_is_there(api: Client, container: str) -> None:
    body = api.get(f"/containers/{container}/logs", stdout=1, tail=10).expect(200).body
    assert body.count(b"\n") == 10


def watching(daemon: Daemon) -> dict[str, float]:
    """What streaming the stats of 50 containers costs the daemon: seconds of CPU in a second."""
    api = _client(daemon)
    with ExitStack() as stack:
        for _ in range(WATCHED):
            container = _create(api, HostConfig={"NetworkMode": "none"})
            _start(api, container)
            stream = stack.enter_context(api.stream("GET", f"/containers/{container}/stats"))
            stream.readline()
        time.sleep(2)
        seconds = 10
        before = _cpu(daemon.pid)
        time.sleep(seconds)
        return {"": (_cpu(daemon.pid) - before) / seconds}


def copying(daemon: Daemon) -> dict[str, float]:
    """A file of 200 MB into a running container, and out of it."""
    api = _client(daemon)
    container = _create(api, HostConfig={"NetworkMode": "none"})
    _start(api, container)
    archive = _Archive()
    headers = {"Content-Type": "application/x-tar", "Content-Length": str(archive.size)}
    began = time.perf_counter()
    path = f"/containers/{container}/archive"
    api.request("PUT", path, archive, query={"path": "/tmp"}, headers=headers).expect(200)
    into = time.perf_counter() - began
    began, got = time.perf_counter(), 0
    with api.stream("GET", f"{path}?path=/tmp/big") as answer:
        while piece := answer.read(2**20):
            got += len(piece)
    assert got >= COPIED, "the file is cut short"
    return {"in": into, "out": time.perf_counter() - began}


class _Archive:
    """A tar archive of one file, read in pieces of 1 MB."""

    def __init__(self) -> None:
        header = tarfile.TarInfo("big")
        header.size = COPIED
        self._piece = os.urandom(2**20)
        self._head: bytes = header.tobuf()
        self._left = COPIED
        self._end = bytes(1024)
        self.size = len(self._head) + COPIED + len(self._end)

    def read(self, _: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        if self._left:
            self._left -= len(self._piece)
            return self._piece
        end, self._end = self._end, b""
        return end


def execute(daemon: Daemon) -> dict[str, float]:
    """`true` executed in a running container: made, started, its output read to its end; median of 20."""
    api = _client(daemon)
    container = _create(api, HostConfig={"NetworkMode": "none"})
    _start(api, container)
    options = {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}

    def run() -> None:
        made = api.post(f"/containers/{container}/exec", options).expect(201).json["Id"]
        started = api.hijack("POST", f"/exec/{made}/start", {"Detach": False, "Tty": False})
        assert started.read_all() == b""
        started.close()
        assert api.get(f"/exec/{made}/json").json["ExitCode"] == 0

    return {"": _median(run, 20)}


def _median(act: Callable[[], None], times: int) -> float:
    samples = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        samples.append(time.perf_counter() - began)
    return statistics.median(samples)


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _bytes_read(pid: int) -> int:
    return int(Path(f"/proc/{pid}/io").read_text().split()[1])


MEASURES = [
    Measure("create", create, {"": 1.5}, rounds=30),
    Measure("start-bridge", start_on("bridge"), {"": 0.40}),
    Measure("start-host", start_on("host"), {"": 0.95}),
    Measure("start-none", start_on("none"), {"": 0.5}),
    Measure("run-cli", run_cli, {"": 0.45}),
    Measure("crowd", crowd, {"": 0.6}, rounds=3),
    Measure("published", published, {"start": 0.1, "remove": 0.05}, rounds=3, warm_up=0),
    Measure("output", output, {"write": 0.7, "read": 0.7, "docker logs": 0.7}, rounds=3),
    Measure("list-500", listing, {"": 1.0}, rounds=1, warm_up=0),
    Measure("tail-1gb", tail, {"": 1.0}, rounds=1, warm_up=0),
    Measure("stats-50", watching, limits={"": 0.05}, rounds=1, warm_up=0, unit="of a core"),
    Measure("copy", copying, {"in": 1.0, "out": 1.0}, rounds=5),
    Measure("exec", execute, {"": 0.9}, rounds=3),
    Measure("build", build, {"cold": 0.5, "cached": 0.5}, rounds=5),
    Measure("build-many-files", build_many_files, {"cold": 0.5, "cached": 0.5}, rounds=5, where=MEMORY),
    Measure("memory", memory, {"daemon": 0.6}, rounds=1, warm_up=0, unit="bytes"),
    Measure("load", images.load("debian"), {"": 0.5}, rounds=5, where=MEMORY),
    Measure("load-small-files", images.load("small"), {"": 0.7}, rounds=3, where=MEMORY),
    Measure("save", images.save, {"": 0.8}, rounds=5, where=MEMORY),
    Measure("pull", images.pull, {"": 0.6}, rounds=5, where=MEMORY),
    Measure("load-memory", images.load_memory, rounds=1, warm_up=0, unit="bytes", where=MEMORY),
]
