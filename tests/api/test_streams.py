"""Connections that turn into streams, and streams that end with their client."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api.served import Serve, Served, parse, read_response

from longshore.api import connection as connection_module
from longshore.api.connection import READ_AHEAD
from longshore.api.hijack import accept_websocket, hijack
from longshore.api.http import Request, Response
from longshore.api.respond import progress_response
from longshore.api.routes import Route
from longshore.errors import Conflict


async def echo(engine: Any, request: Request) -> None:
    """What is sent comes back; after the client's end, how much it was."""
    await request.body.read(1 << 20)
    connection = hijack(request, multiplexed=True)
    total = 0
    while chunk := await connection.read():
        total += len(chunk)
        await connection.write(chunk)
    await connection.write(b"|%d" % total)
    await connection.close()


async def echo_websocket(engine: Any, request: Request) -> None:
    connection = accept_websocket(request)
    while chunk := await connection.read():
        await connection.write(chunk)
    await connection.close()


ECHO = Route("POST", "/echo", echo, hijacks=True)
UPGRADE = b"Upgrade: tcp\r\nConnection: Upgrade\r\n"


def hijacked(path: str = "/echo", extra: bytes = b"", body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"POST %b HTTP/1.1\r\nHost: d\r\n%b%b\r\n%b" % (path.encode(), extra, length, body)


def exchange(client: socket.socket, request: bytes, early: bytes, late: bytes) -> tuple[bytes, bytes]:
    """The answer's head, and everything after it."""
    client.sendall(request + early)
    answer = bytearray()
    while b"\r\n\r\n" not in answer:
        answer += client.recv(1)
    client.sendall(late)
    client.shutdown(socket.SHUT_WR)
    return bytes(answer), read_response(client)


@pytest.mark.parametrize("body", [b"", b'{"Detach":false}'])
def test_upgrade_keeps_early_bytes_and_each_direction_ends_alone(serve: Serve, body: bytes) -> None:
    with serve(ECHO).connect() as client:
        head, data = exchange(client, hijacked(extra=UPGRADE, body=body), b"early ", b"late")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert b"Content-Type: application/vnd.docker.multiplexed-stream\r\n" in head
    assert b"Api-Version: 1.50\r\n" in head
    assert data == b"early late|10"


def test_without_upgrade_the_stream_follows_a_200(serve: Serve) -> None:
    with serve(ECHO).connect() as client:
        head, data = exchange(client, hijacked(), b"", b"late")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: application/vnd.docker.raw-stream\r\n" in head
    assert data == b"late|4"


def test_old_clients_are_not_told_of_multiplexing(serve: Serve) -> None:
    with serve(ECHO).connect() as client:
        head, _ = exchange(client, hijacked("/v1.41/echo", UPGRADE), b"", b"")
    assert b"Content-Type: application/vnd.docker.raw-stream\r\n" in head


def test_much_data_both_ways(serve: Serve) -> None:
    payload = os.urandom(8 << 20)
    with serve(ECHO).connect() as client:
        client.settimeout(20)
        client.sendall(hijacked(extra=UPGRADE))
        while b"\r\n\r\n" not in (head := client.recv(4096, socket.MSG_PEEK)):
            pass
        client.recv(head.index(b"\r\n\r\n") + 4)
        child = os.fork()
        if child == 0:
            client.sendall(payload)
            client.shutdown(socket.SHUT_WR)
            os._exit(0)
        data = read_response(client)
        os.waitpid(child, 0)
    assert data == payload + b"|%d" % len(payload)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return directory


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def tls_settings(certificates: Path) -> dict[str, Any]:
    cert, key = str(certificates / "cert.pem"), str(certificates / "key.pem")
    return {"tls": True, "tlsverify": True, "tlscert": cert, "tlskey": key, "tlscacert": cert}


def test_half_close_works_through_tls(serve: Serve, certificates: Path) -> None:
    port = free_port()
    serve(ECHO, hosts=(f"tcp://127.0.0.1:{port}",), **tls_settings(certificates))
    context = ssl.create_default_context(cafile=str(certificates / "cert.pem"))
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", port), 5) as wire:

        def until(step: Any) -> Any:
            while True:
                try:
                    result = step()
                    wire.sendall(outgoing.read())
                    return result
                except ssl.SSLWantReadError:
                    wire.sendall(outgoing.read())
                    incoming.write(wire.recv(1 << 16))

        until(client.do_handshake)
        client.write(hijacked(extra=UPGRADE) + b"in")
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()  # sends close_notify: nothing more will come from this side
        wire.sendall(outgoing.read())
        answer = b""
        while not answer.endswith(b"in|2"):
            answer += until(lambda: client.read(4096))


def test_clients_without_a_certificate_are_refused(serve: Serve, certificates: Path) -> None:
    port = free_port()
    serve(hosts=(f"tcp://127.0.0.1:{port}",), **tls_settings(certificates))
    context = ssl.create_default_context(cafile=str(certificates / "cert.pem"))
    with (
        socket.create_connection(("127.0.0.1", port), 5) as wire,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(wire, server_hostname="localhost") as client,
    ):
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        if client.recv(100) == b"":
            raise ConnectionError


def masked(opcode: int, payload: bytes) -> bytes:
    key = b"\x01\x02\x03\x04"
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack("!H", len(payload))
    return bytes([0x80 | opcode]) + size + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


@pytest.mark.parametrize("payload", [b"hello", b"x" * 1000])
def test_websocket(serve: Serve, payload: bytes) -> None:
    served = serve(Route("GET", "/ws", echo_websocket, hijacks=True))
    handshake = (
        b"GET /ws HTTP/1.1\r\nHost: d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % base64.b64encode(b"k" * 16)
    )
    with served.connect() as client:
        client.sendall(handshake + masked(9, b"are you there") + masked(2, payload) + masked(8, b""))
        head, _, data = read_response(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack("!H", len(payload))
    assert data == b"\x8a\x0dare you there" + b"\x82" + size + payload + b"\x88\x02\x03\xe8"


def test_not_a_websocket_handshake(serve: Serve) -> None:
    assert serve(Route("GET", "/ws", echo_websocket)).get("/ws")[0] == 400


def test_errors_before_a_hijack_are_ordinary(serve: Serve) -> None:
    async def handler(engine: Any, request: Request) -> None:
        raise Conflict("paused")

    served = serve(Route("POST", "/attach", handler))
    status, headers, body = served.get("/attach", "POST", "Upgrade: tcp\r\n")
    assert (status, headers["content-type"], body) == (409, "application/json", b'{"message":"paused"}\n')


def test_a_stream_ends_with_its_client(serve: Serve) -> None:
    ended: list[str] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.sleep(3600)
        finally:
            ended.append("yes")

    async def handler(engine: Any, request: Request) -> Response:
        return Response(200, endless())

    served = serve(Route("GET", "/endless", handler))
    with served.connect() as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: d\r\n\r\n")
        answer = b""
        while not answer.endswith(b"\r\n5\r\nfirst\r\n"):
            answer += client.recv(4096)
        assert not ended
    settled(served)
    assert ended == ["yes"]


def settled(served: Served) -> None:
    deadline = time.monotonic() + 3
    while served.tasks() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert served.tasks() == 0


def test_an_operation_goes_on_without_its_client(serve: Serve) -> None:
    done: list[str] = []

    async def handler(engine: Any, request: Request) -> Response:
        await asyncio.sleep(0.3)
        done.append("yes")
        return Response(204)

    served = serve(Route("POST", "/slow", handler))
    with served.connect() as client:
        client.sendall(b"POST /slow HTTP/1.1\r\nHost: d\r\n\r\n")
        time.sleep(0.1)
    settled(served)
    assert done == ["yes"]


def test_events_stream_and_stop(serve: Serve) -> None:
    served = serve()
    with served.connect() as client:
        client.sendall(
            b"GET /events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D HTTP/1.1\r\nHost: d\r\n\r\n"
        )
        assert b"200 OK" in client.recv(4096)
        deadline = time.monotonic() + 3
        while not served.events.listeners and time.monotonic() < deadline:
            time.sleep(0.01)
        for kind in ("network", "container"):
            served.loop.call_soon_threadsafe(served.events.publish, kind, "start", "abc", {"image": "i"})
        line = client.recv(4096)
        assert b'"status":"start","id":"abc","from":"i","Type":"container"' in line
    settled(served)
    assert served.events.listeners == 0


def test_progress_errors(serve: Serve) -> None:
    async def messages(fail_at: int) -> AsyncIterator[dict[str, object]]:
        for number in range(3):
            if number == fail_at:
                raise Conflict("broken off")
            yield {"status": str(number)}

    async def handler(engine: Any, request: Request) -> Response:
        return await progress_response(messages(int(request.vars["at"])))

    served = serve(Route("POST", "/progress/{at}", handler))
    assert served.get("/progress/0", "POST")[0] == 409
    status, _, body = served.get("/progress/1", "POST")
    assert status == 200
    assert b'{"status":"0"}\r\n' in body
    assert b'{"errorDetail":{"message":"broken off"},"error":"broken off"}\r\n' in body


def test_requests_follow_each_other_on_a_connection(serve: Serve) -> None:
    with serve().connect() as client:
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n" * 2 + b"GET /_ping HTTP/1.0\r\n\r\n")
        raw = read_response(client)
    assert raw.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert parse(raw)[0] == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: d\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: d\r\n folded: x\r\n\r\n",
    ],
)
def test_requests_that_could_be_read_in_two_ways_are_refused(serve: Serve, request_bytes: bytes) -> None:
    assert serve().ask(request_bytes)[0] == 400


def test_chunked_bodies_and_expect_continue(serve: Serve) -> None:
    async def handler(engine: Any, request: Request) -> Response:
        return Response(200, await request.body.read(1 << 20))

    served = serve(Route("POST", "/body", handler))
    with served.connect() as client:
        client.sendall(
            b"POST /body HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"3;ext=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n")
        assert parse(read_response(client))[2] == b"abc0123456789"


def test_a_head_that_never_ends_costs_the_connection(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_TIMEOUT", 0.5)
    served = serve()
    with served.connect() as silent, served.connect() as slow, served.connect() as idle:
        idle.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        assert idle.recv(4096).startswith(b"HTTP/1.1 200 OK")
        slow.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\nGET /_ping")
        assert b"200 OK" in slow.recv(4096)
        assert silent.recv(1) == b""
        assert read_response(slow) == b""
        time.sleep(0.5)
        idle.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        assert parse(read_response(idle))[0] == 200


def test_a_body_behind_a_long_head(serve: Serve) -> None:
    async def handler(engine: Any, request: Request) -> Response:
        return Response(200, b"%d" % len(await request.body.read(1 << 20)))

    served = serve(Route("POST", "/body", handler))
    head = b"POST /body HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 9\r\n"
    with served.connect() as client:
        client.sendall(head + b"X: " + b"x" * (READ_AHEAD + (64 << 10)) + b"\r\n\r\n")
        time.sleep(0.2)
        client.sendall(b"the body!")
        assert parse(read_response(client))[2] == b"9"
