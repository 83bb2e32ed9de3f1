"""What is measured of networks, as in `measures`."""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import Busybox, Daemon, Layer, docker_archive
from harness.machine import descendants
from measures import Measure, _client, _create, _remove, _start

from longshore.linux.namespaces import in_network_namespace

MANY_PORTS = 1000
MANY_CONTAINERS = 200
VOLUME = 2 * 2**30
IPERF3, PORT = "bench-iperf3:latest", 5201
QUERIES = 20_000
AHEAD = 32
"""Queries under way at once."""


def start_on_own(daemon: Daemon) -> dict[str, float]:
    """POST /containers/x/start on a user-defined network."""
    api = _client(daemon)
    api.post("/networks/create", {"Name": "own"}).expect(201)
    return {"": _start(api, _create(api, HostConfig={"NetworkMode": "own"}))}


def network(daemon: Daemon) -> dict[str, float]:
    """A network made, a running container put on it and taken off it, the network removed."""
    api = _client(daemon)
    container = _create(api)
    _start(api, container)
    times: dict[str, float] = {}

    def take(name: str, method: str, path: str, body: object = None) -> None:
        began = time.perf_counter()
        answer = api.request(method, path, body)
        times[name] = time.perf_counter() - began
        assert answer.status < 300, answer.body

    take("create", "POST", "/networks/create", {"Name": "bench"})
    take("connect", "POST", "/networks/bench/connect", {"Container": container})
    take("disconnect", "POST", "/networks/bench/disconnect", {"Container": container})
    take("rm", "DELETE", "/networks/bench")
    return times


def many_ports(daemon: Daemon) -> dict[str, float]:
    """A container with 1,000 published ports: its start. dockerd takes minutes, above all for the removal."""
    api = _client(daemon)
    ports = {f"{port}/tcp": [{"HostPort": str(port)}] for port in range(20000, 20000 + MANY_PORTS)}
    container = _create(api, ExposedPorts={port: {} for port in ports}, HostConfig={"PortBindings": ports})
    took = _start(api, container)
    _remove(api, container)
    return {"": took}


def among_many(daemon: Daemon) -> dict[str, float]:
    """A start while 200 containers run, and how many times as long as the first it takes."""
    api = _client(daemon)
    took = []
    for _ in range(MANY_CONTAINERS + 10):
        took.append(_start(api, _create(api)))
    first, last = sorted(took[:10])[5], sorted(took[-10:])[5]
    return {"": last, "growth": last / first}


def no_iperf3() -> str | None:
    """Why throughput cannot be measured here, or None."""
    return None if shutil.which("iperf3") else "iperf3 is not installed"


def throughput(daemon: Daemon) -> dict[str, float]:
    """2 GB over TCP, as iperf3 sends them: to a container from another, and through a published port."""
    api = _client(daemon)
    if IPERF3 not in str(api.get("/images/json").body):
        with tempfile.TemporaryDirectory(prefix="lsh-bench-") as scratch:
            daemon.load(_iperf3_archive(Path(scratch) / "iperf3.tar"))
    api.post("/networks/create", {"Name": "own"}).expect(201)
    ports = {f"{PORT}/tcp": [{"HostPort": str(PORT)}]}
    settings = {"NetworkMode": "own", "PortBindings": ports}
    served = {"Image": IPERF3, "Cmd": ["iperf3", "-s", "--forceflush"], "ExposedPorts": {f"{PORT}/tcp": {}}}
    server = _create(api, **served, HostConfig=settings)
    client = _create(api, Image=IPERF3, HostConfig={"NetworkMode": "own"})
    for container in (server, client):
        _start(api, container)
    shown = api.get(f"/containers/{server}/json").json["NetworkSettings"]["Networks"]["own"]
    address, gateway = shown["IPAddress"], shown["Gateway"]
    while daemon.docker("logs", server).stdout.count("listening") == 0:
        time.sleep(0.05)

    def among_containers(*command: str) -> str:
        return daemon.docker("exec", client, *command).stdout

    def on_the_machine(*command: str) -> str:
        return daemon.nsenter(*command, timeout=120).stdout

    return {
        "between containers": _send(among_containers, address),
        "published": _send(on_the_machine, gateway),
    }


def resolver(daemon: Daemon) -> dict[str, float]:
    """20,000 questions for a neighbour's name to the embedded resolver."""
    api = _client(daemon)
    api.post("/networks/create", {"Name": "own"}).expect(201)
    for name in ("web", "asking"):
        body = {"HostConfig": {"NetworkMode": "own"}}
        container = _create(api, **body, NetworkingConfig={"EndpointsConfig": {"own": {"Aliases": [name]}}})
        _start(api, container)
    inside = _namespace(daemon, container)
    labels = b"\x03web\0" + struct.pack("!HH", 1, 1)
    with in_network_namespace(inside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.connect(("127.0.0.11", 53))
        client.settimeout(5)
        asked = answered = 0
        began = time.perf_counter()
        while answered < QUERIES:
            while asked < QUERIES and asked - answered < AHEAD:
                client.send(struct.pack("!HHHHHH", asked & 0xFFFF, 0x100, 1, 0, 0, 0) + labels)
                asked += 1
            reply = client.recv(512)
            assert reply[7] == 1, reply
            answered += 1
        return {"": time.perf_counter() - began}


def _namespace(daemon: Daemon, container: str) -> str:
    """Path of a container's network namespace as seen from here."""
    shown = _client(daemon).get(f"/containers/{container}/json").json["State"]["Pid"]
    for pid in _below(daemon):
        status = Path(f"/proc/{pid}/status").read_text()
        numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
        if numbers[1:2] == [str(shown)]:  # here, where the daemon is, in the container
            return f"/proc/{pid}/ns/net"
    raise ProcessLookupError(f"container {container} has no process")


def _below(daemon: Daemon) -> Iterator[int]:
    assert daemon.process is not None
    yield from descendants(daemon.process.pid)


def _send(run: Callable[..., str], address: str) -> float:
    """Seconds that iperf3, run by `run`, takes for the volume."""
    report = json.loads(run("iperf3", "-c", address, "-p", str(PORT), "-n", str(VOLUME), "-J"))
    assert report["end"]["sum_received"]["bytes"] > VOLUME * 0.99, report.get("error")
    return float(report["end"]["sum_received"]["seconds"])


def _iperf3_archive(path: Path) -> Path:
    """An image of busybox, iperf3 and its libraries."""
    program = str(shutil.which("iperf3"))
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    files = [program, *re.findall(r"(/\S+) \(0x", linked)]
    layer = Layer(
        {file.lstrip("/"): Path(file).read_bytes() for file in files},
        modes={file.lstrip("/"): 0o755 for file in files},
    )
    docker_archive(path, [Busybox.layer(), layer], [IPERF3])
    return path


NETWORK_MEASURES = [
    Measure("start-own-network", start_on_own, {"": 0.35}),
    Measure(
        "network",
        network,
        {"create": 0.3, "connect": 0.3, "disconnect": 0.3, "rm": 0.3},
    ),
    Measure("many-ports", many_ports, {"": 0.05}, rounds=1, warm_up=0),
    Measure(
        "many-ports-no-proxy",
        many_ports,
        {"": 0.05},
        rounds=1,
        warm_up=0,
        flags=("--userland-proxy=false",),
    ),
    Measure("among-many", among_many, {"": 0.4}, rounds=1, warm_up=0),
    Measure(
        "throughput",
        throughput,
        {"between containers": 1.05, "published": 1.05},
        rounds=7,
        missing=no_iperf3,
    ),
    Measure("resolver", resolver, {"": 1.0}, rounds=5),
]
