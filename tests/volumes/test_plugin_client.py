"""Plug-ins that are slow, dead, or lie; and those behind TLS."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness.certificates import make_authority

from longshore.errors import System
from longshore.plugins import Plugin, PluginFailure, PluginUnreachable, plugin_of
from longshore.volumes.remote import RemoteDriver

Behaviour = Callable[[socket.socket], object]
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Served:
    """A socket on which every request is answered by `behave`, byte by byte if it wants."""

    def __init__(self, path: Path, behave: Behaviour) -> None:
        self.behave = behave
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            request = connection.makefile("rb")
            lines = iter(request.readline, b"\r\n")
            lengths = [int(line.split()[1]) for line in lines if line.lower().startswith(b"content-length:")]
            request.read(sum(lengths))
            self.behave(connection)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Callable[[Behaviour], Plugin]]:
    """A plug-in that behaves as told."""
    served: list[Served] = []

    def serve(behave: Behaviour) -> Plugin:
        served.append(Served(tmp_path / "p.sock", behave))
        return Plugin("p", f"unix://{tmp_path}/p.sock")

    yield serve
    for each in served:
        each.close()


def answer(body: bytes, head: bytes = _HEAD) -> Behaviour:
    """The same answer each time."""
    return lambda connection: connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def dribble(connection: socket.socket) -> None:
    connection.sendall(_HEAD + b"Content-Length: 100000\r\n\r\n{")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def endless_headers(connection: socket.socket) -> None:
    connection.sendall(_HEAD)
    for number in itertools.count():
        connection.sendall(b"X-%d: y\r\n" % number)


def endless_body(connection: socket.socket) -> None:
    connection.sendall(_HEAD + b"Content-Length: 1000000000000\r\n\r\n{")
    while True:
        connection.sendall(b" " * (1 << 20))


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (dribble, "timed out"),
        (lambda connection: connection.recv(1), "timed out"),
        (endless_headers, "got more than 100 headers"),
        (lambda connection: None, "Remote end closed connection without response|reset by peer"),
    ],
    ids=["dribbles", "says nothing", "headers", "hangs up"],
)
def test_one_that_does_not_answer_is_not_waited_for(
    asked: Callable[[Behaviour], Plugin], behave: Behaviour, message: str
) -> None:
    with pytest.raises(PluginUnreachable, match=message):
        asked(behave).call("VolumeDriver.Get", {"Name": "x"}, timeout=1, patience=0)


def test_whoever_has_little_time_does_not_wait_with_others(asked: Callable[[Behaviour], Plugin]) -> None:
    released = threading.Event()
    asking = threading.Event()

    def silent(connection: socket.socket) -> None:
        asking.set()
        released.wait()

    plugin = asked(silent)

    def patient() -> None:
        with suppress(PluginUnreachable):
            plugin.implements("VolumeDriver", patience=0, timeout=600)

    thread = threading.Thread(target=patient)
    thread.start()
    try:
        assert asking.wait(60)
        with pytest.raises(PluginUnreachable, match="timed out"):
            plugin.implements("VolumeDriver", patience=0, timeout=1)
        assert thread.is_alive()
    finally:
        released.set()
        thread.join()


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (endless_body, "the plug-in's answer is longer than 16777216 bytes"),
        (answer(b"nonsense"), "the plug-in's answer is no JSON object"),
        (answer(b"[1]"), "the plug-in's answer is no JSON object"),
        (answer(b"[" * 100_000), "the plug-in's answer is no JSON object"),
        (answer(b"\xff\xfe"), "the plug-in's answer is no JSON object"),
        (answer(b'{"Err":{"a":1}}'), "{'a': 1}"),
        (answer(b"<b>no</b>", b"HTTP/1.1 502 Bad\r\n"), "VolumeDriver.Get: <b>no</b>"),
    ],
    ids=["endless", "text", "list", "deep", "bytes", "error", "page"],
)
def test_one_that_talks_nonsense_is_not_believed(
    asked: Callable[[Behaviour], Plugin], behave: Behaviour, message: str
) -> None:
    with pytest.raises(PluginFailure, match=message) as failure:
        asked(behave).call("VolumeDriver.Get", {"Name": "x"}, timeout=20, patience=0)
    assert not isinstance(failure.value, PluginUnreachable)


@pytest.mark.parametrize(
    "said", [{}, {"Mountpoint": ""}, {"Mountpoint": "etc"}, {"Mountpoint": 7}, {"Mountpoint": "/a\0b"}]
)
def test_a_mount_point_is_a_path(asked: Callable[[Behaviour], Plugin], said: dict[str, Any]) -> None:
    driver = RemoteDriver(asked(answer(json.dumps(said).encode())))
    with pytest.raises(System, match="volume driver p gave no mount point for x"):
        driver.mount("x", "user")


def test_lists_and_capabilities_may_be_anything(asked: Callable[[Behaviour], Plugin]) -> None:
    said = {"Volumes": [None, 1, {}, {"Name": 5}, {"Name": "good"}], "Capabilities": "many"}
    driver = RemoteDriver(asked(answer(json.dumps(said).encode())))
    assert driver.list() == [{"Name": "good"}]
    assert driver.scope == "local"


@pytest.mark.parametrize("address", ["tcp://", "nonsense", "http://h:x", "http://h:99999", "https://[::"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(PluginFailure, match="plugin p: invalid address"):
        Plugin("p", address).call("VolumeDriver.Get", patience=0)


def test_one_behind_tls(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    authority = make_authority(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"Implements":["VolumeDriver"]}')

        def log_message(self, format: str, *args: Any) -> None:
            pass

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority / "server.crt", authority / "server.key")
    tls.load_verify_locations(authority / "ca.crt")
    tls.verify_mode = ssl.CERT_REQUIRED
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def plugin(**settings: Any) -> Plugin:
        described = {"Name": "far", "Addr": f"tcp://127.0.0.1:{server.server_port}", "TLSConfig": settings}
        (tmp_path / "far.json").write_text(json.dumps(described))
        return plugin_of("far", tmp_path / "sockets", [tmp_path])

    ours = {"CertFile": str(authority / "server.crt"), "KeyFile": str(authority / "server.key")}
    try:
        assert plugin(CAFile=str(authority / "ca.crt"), **ours).implements("VolumeDriver", 0)
        assert plugin(InsecureSkipVerify=True, **ours).implements("VolumeDriver", 0)
        for wrong in (ours, {"InsecureSkipVerify": True}):
            with pytest.raises(PluginUnreachable):
                plugin(**wrong).implements("VolumeDriver", 0)
        with pytest.raises(PluginFailure, match="plugin far: TLS configuration: No such file or directory"):
            plugin(CAFile="/nowhere").implements("VolumeDriver", 0)
    finally:
        server.shutdown()
        server.server_close()
