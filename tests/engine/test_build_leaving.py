"""Clients that leave while a build waits for somebody else: it ends at once, and leaves nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from differential.builds import archive
from engine.test_build import _wait_for_nothing_left, builder, made
from harness import Longshored

__all__ = ["builder"]

SOON = 20
"""Seconds: much less than what any of these waits for by itself, much more than a slow machine needs."""


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server on this machine that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(SOON)
        yield server


def leave_amid(
    daemon: Longshored, body: bytes, remote: str, silent: socket.socket, said: bytes = b""
) -> None:
    """Begin a build, wait until it asks the silent server for something, leave, and see what comes of it."""
    target = f"/v1.50/build?remote={quote(remote, safe='')}"
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        client.sendall(f"{head}\r\n\r\n".encode() + body)
        connection, _ = silent.accept()
        with connection:
            connection.settimeout(SOON)
            assert connection.recv(1 << 16)
            connection.sendall(said)
            time.sleep(0.1)
            client.close()
            while connection.recv(1 << 16):
                pass
    _wait_for_nothing_left(daemon, SOON)
    assert at_work_below(daemon) == []


def at_work_below(daemon: Longshored) -> list[str]:
    """Processes in a build's directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "cwd").readlink()).startswith(str(daemon.data_root / "builder")):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"


@pytest.mark.parametrize("said", [b"", HALF], ids=["nothing", "half"])
@pytest.mark.parametrize("kind", ["repository", "archive", "add", "add-repository"])
def test_what_is_fetched_from_a_server_that_hangs(
    builder: Longshored, silent: socket.socket, kind: str, said: bytes
) -> None:
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
    match kind:
        case "repository":
            leave_amid(builder, b"", f"{url}.git", silent, said)
        case "archive":
            leave_amid(builder, b"", f"{url}.tar", silent, said)
        case "add":
            leave_amid(builder, archive(f"FROM busybox\nADD {url} /x\n"), "", silent, said)
        case _:
            leave_amid(builder, archive(f"FROM busybox\nADD {url}.git /x\n"), "", silent, said)


def test_a_server_that_cannot_be_reached(builder: Longshored) -> None:
    """Its queue is full, so that it answers nobody who wants to connect."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        queued = [socket.socket() for _ in range(4)]
        for each in queued:
            each.setblocking(False)
            each.connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        body = archive(f"FROM busybox\nADD {url} /x\n")
        head = f"POST /v1.50/build HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(builder.socket))
            client.settimeout(SOON)
            client.sendall(head.encode() + body)
            shown = b""
            while b"Step 2/2" not in shown:
                shown += client.recv(1 << 16)
            time.sleep(0.2)
        _wait_for_nothing_left(builder, SOON)
        for each in queued:
            each.close()


def test_a_daemon_that_dies_leaves_no_git(fresh_daemon: Longshored, silent: socket.socket) -> None:
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.git"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(fresh_daemon.socket))
        client.sendall(f"POST /v1.50/build?remote={url} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1 << 16)
            fresh_daemon.kill()
            assert at_work_below(fresh_daemon)
            fresh_daemon.start()
            assert at_work_below(fresh_daemon) == []
    _wait_for_nothing_left(fresh_daemon)
    made(fresh_daemon, "FROM busybox\nRUN true\n")
