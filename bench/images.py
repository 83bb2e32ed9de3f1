"""Images to measure with, made once under build/bench, and what is measured of them."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import random
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from harness import Daemon
from harness.images import ARCHITECTURE
from harness.machine import resident

CACHE = Path(__file__).resolve().parents[1] / "build/bench"
FILES = {"debian": 9_000, "small": 60_000, "huge": 1}
"""How many each of the images has."""
PORT = 5000
"""Of the registry, which is alone with a daemon on its loopback."""


def archive(name: str) -> Path:
    """The docker-archive of one of the images."""
    path = CACHE / f"{name}.tar"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=CACHE) as layer:
            with tarfile.open(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) as tar:
                _fill(tar, name)
            layer.flush()
            _write_archive(path.with_suffix(".making"), Path(layer.name), f"bench/{name}:latest").rename(path)
    return path


def load(name: str) -> Callable[[Daemon], dict[str, float]]:
    """`docker load` of an image."""

    def measure(daemon: Daemon) -> dict[str, float]:
        tar = archive(name)
        try:
            return {"": _load(daemon, tar)}
        finally:
            _remove(daemon, f"bench/{name}")

    return measure


def save(daemon: Daemon) -> dict[str, float]:
    """`docker save` of the Debian-like image."""
    _load(daemon, archive("debian"))
    try:
        began = time.perf_counter()
        with _answer(daemon, "GET", "/images/bench/debian/get") as answer:
            size = 0
            while chunk := answer.read(1 << 20):
                size += len(chunk)
        assert size >= archive("debian").stat().st_size - (1 << 20), "the archive is cut short"
        return {"": time.perf_counter() - began}
    finally:
        _remove(daemon, "bench/debian")


def pull(daemon: Daemon) -> dict[str, float]:
    """`docker pull` of the Debian-like image from a registry on the daemon's loopback."""
    with _registry(daemon) as address:
        began = time.perf_counter()
        with _answer(daemon, "POST", f"/images/create?fromImage={address}/debian&tag=latest") as answer:
            body = answer.read()
        assert answer.status == 200 and b'"error"' not in body, body
        took = time.perf_counter() - began
        _remove(daemon, f"{address}/debian")
        return {"": took}


def load_memory(daemon: Daemon) -> dict[str, float]:
    """What the daemon's resident memory grows by, at most, while it loads a layer of 2 GB."""
    tar, idle, most = archive("huge"), resident(daemon.pid), 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            most = max(most, resident(daemon.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        _load(daemon, tar)
    finally:
        ended.set()
        watcher.join()
        _remove(daemon, "bench/huge")
    return {"": float(most - idle)}


def _load(daemon: Daemon, tar: Path) -> float:
    began = time.perf_counter()
    with tar.open("rb") as file, _answer(daemon, "POST", "/images/load?quiet=1", file) as answer:
        body = answer.read()
    assert answer.status == 200 and b'"error"' not in body, body
    return time.perf_counter() - began


def _remove(daemon: Daemon, image: str) -> None:
    with _answer(daemon, "DELETE", f"/images/{image}?force=1") as answer:
        answer.read()


@contextmanager
def _answer(
    daemon: Daemon, method: str, path: str, body: IO[bytes] | None = None
) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("localhost", timeout=300, blocksize=1 << 20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(daemon.socket))
    try:
        connection.request(method, f"/v1.41{path}", body, {"Content-Type": "application/x-tar"})
        yield connection.getresponse()
    finally:
        connection.close()


@contextmanager
def _registry(daemon: Daemon) -> Iterator[str]:
    """A registry where the daemon is, with the image in it: pushed once, by whoever is measured first."""
    storage = CACHE / "registry"
    config = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": f"127.0.0.1:{PORT}"},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(json.dumps(config))
        file.flush()
        inside = ["nsenter", "--net", "-t", str(daemon.pid)]
        process = subprocess.Popen(
            [*inside, "docker-registry", "serve", file.name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while (
                f"0100007F:{PORT:04X} 00000000:0000 0A" not in Path(f"/proc/{daemon.pid}/net/tcp").read_text()
            ):
                assert process.poll() is None, "docker-registry ended"
                time.sleep(0.05)
            address = f"127.0.0.1:{PORT}"
            if not storage.exists():
                _push(daemon, f"{address}/debian")
            yield address
        finally:
            process.terminate()
            process.wait()


def _push(daemon: Daemon, name: str) -> None:
    _load(daemon, archive("debian"))
    with _answer(daemon, "POST", f"/images/bench/debian/tag?repo={name}&tag=latest") as answer:
        answer.read()
    daemon.docker("push", "-q", name, timeout=300)
    _remove(daemon, name)
    _remove(daemon, "bench/debian")


def _write_archive(path: Path, layer: Path, tag: str) -> Path:
    with layer.open("rb") as file:
        diff_id = hashlib.file_digest(file, "sha256").hexdigest()
    image = json.dumps(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        }
    ).encode()
    names = {"Config": "config.json", "RepoTags": [tag], "Layers": ["layer/layer.tar"]}
    with tarfile.open(path, "w") as tar:
        tar.add(layer, "layer/layer.tar")
        for name, content in (("config.json", image), ("manifest.json", json.dumps([names]).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def _fill(tar: tarfile.TarFile, name: str) -> None:
    """A tree of directories; the same for the same name."""
    chance, number = random.Random(name), FILES[name]
    words = [chance.randbytes(chance.randint(2, 12)).hex().encode() for _ in range(4000)]
    pool = b" ".join(chance.choice(words) for _ in range(200_000)) + chance.randbytes(1 << 20)
    for index in range(number):
        if index % 12 == 0:
            folder = f"usr/share/{index // 600}/{index // 12}"
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1700000000
            tar.addfile(entry)
        size = {"debian": lambda: _debian_size(chance), "small": lambda: chance.randint(20, 900)}.get(
            name, lambda: 2 << 30
        )()
        entry = tarfile.TarInfo(f"{folder}/file-{index}.so")
        entry.size, entry.mode, entry.mtime = size, 0o644, 1700000000 + index
        if size > 1 << 28:
            tar.addfile(entry, _Endless(pool))  # type: ignore[arg-type]
            continue
        start = chance.randrange(len(pool) // 2)
        content = pool[start : start + size]
        while len(content) < size:
            content += pool
        tar.addfile(entry, io.BytesIO(content[:size]))


def _debian_size(chance: random.Random) -> int:
    # As in a Debian root file system: half are below 2 kB, and a few libraries make up most of it.
    return min(int(chance.lognormvariate(7.97, 2.0)), 6 << 20) + 20


class _Endless(io.RawIOBase):
    def __init__(self, pool: bytes) -> None:
        super().__init__()
        self._pool = pool

    def read(self, size: int = -1) -> bytes:
        with suppress(IndexError):
            return (self._pool * (size // len(self._pool) + 1))[:size]
        return b""
