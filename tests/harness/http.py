"""A plain HTTP client over a unix socket: nothing between the test and the bytes on the wire."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from harness.patience import PATIENCE


@dataclass(frozen=True)
class Response:
    """An answer, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """The body as a stream of JSON messages, one a line."""
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]

    @property
    def message(self) -> str:
        """What an error says; fails on an answer that is none."""
        return str(self.json["message"])

    def expect(self, *statuses: int) -> Response:
        """This answer, if its status is one of `statuses`; else an AssertionError that shows it."""
        assert self.status in statuses, f"HTTP {self.status}, expected {statuses}: {self.body[:2000]!r}"
        return self


@dataclass
class Hijacked:
    """A connection that the daemon handed over: raw bytes both ways."""

    status: int
    headers: dict[str, str]
    sock: socket.socket
    pending: bytes = field(default=b"")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def close_write(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def recv(self, size: int = 65536) -> bytes:
        if self.pending:
            data, self.pending = self.pending[:size], self.pending[size:]
            return data
        return self.sock.recv(size)

    def read_all(self) -> bytes:
        """Everything until the daemon closes."""
        data = b""
        while chunk := self.recv():
            data += chunk
        return data

    def frames(self) -> list[tuple[int, bytes]]:
        """The multiplexed stream until the daemon closes: (1 stdout or 2 stderr, payload)."""
        return split_frames(self.read_all())

    def close(self) -> None:
        self.sock.close()


def split_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Take Docker's multiplexed stream apart: (stream, payload) for each frame."""
    frames = []
    while data:
        assert len(data) >= 8, f"a frame's header is cut short: {data!r}"
        assert data[1:4] == b"\0\0\0", f"not a multiplexed stream: {data[:80]!r}"
        size = int.from_bytes(data[4:8], "big")
        assert len(data) >= 8 + size, "a frame is cut short"
        frames.append((data[0], data[8 : 8 + size]))
        data = data[8 + size :]
    return frames


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Requests to one daemon. Paths are given without a version; `version` is put in front ("" for none)."""

    def __init__(self, socket_path: Path, version: str = "1.41", timeout: float = 60) -> None:
        self.socket_path = socket_path
        self.version = version
        self.timeout = timeout * PATIENCE

    def get(self, path: str, **query: Any) -> Response:
        return self.request("GET", path, query=query)

    def head(self, path: str, **query: Any) -> Response:
        return self.request("HEAD", path, query=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Response:
        return self.request("POST", path, body, query=query)

    def put(self, path: str, body: Any = None, **query: Any) -> Response:
        return self.request("PUT", path, body, query=query)

    def delete(self, path: str, **query: Any) -> Response:
        return self.request("DELETE", path, query=query)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send one request on a connection of its own and read the whole answer.

        A `body` that is bytes, or an open file, goes as it is; anything else but None goes as JSON.
        """
        connection = _UnixConnection(self.socket_path, self.timeout)
        try:
            answer = self._send(connection, method, self.target(path, query), body, headers)
            return Response(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    @contextmanager
    def stream(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, **query: Any
    ) -> Iterator[http.client.HTTPResponse]:
        """Send one request and hand out the answer unread; leaving the block closes the connection."""
        connection = _UnixConnection(self.socket_path, self.timeout)
        try:
            yield self._send(connection, method, self.target(path, query), body, headers)
        finally:
            connection.close()

    def hijack(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        early: bytes = b"",
        upgrade: bool = True,
        **query: Any,
    ) -> Hijacked:
        """Ask for the raw connection; `early` is sent in the same write, right behind the request.

        Any status is returned, the caller looks at it: 101 (upgraded), 200 (handed over the old way) or an
        error, whose JSON is then what `read_all` gives.
        """
        payload = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {self.target(path, query)} HTTP/1.1", "Host: localhost"]
        if upgrade:
            head += ["Connection: Upgrade", "Upgrade: tcp"]
        head += ["Content-Type: application/json", f"Content-Length: {len(payload)}", "", ""]
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        sock.connect(str(self.socket_path))
        sock.sendall("\r\n".join(head).encode() + payload + early)
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = sock.recv(65536)
            if not chunk:
                raise ConnectionError(f"the daemon closed the connection after {data!r}")
            data += chunk
        raw, rest = data.split(b"\r\n\r\n", 1)
        status_line, *fields = raw.decode().split("\r\n")
        parsed = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
        return Hijacked(int(status_line.split()[1]), parsed, sock, rest)

    def target(self, path: str, query: dict[str, Any] | None = None) -> str:
        """The request target: version, path and query; dictionaries become JSON, as `filters` wants."""
        prefix = f"/v{self.version}" if self.version else ""
        if not query:
            return prefix + path
        pairs = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in query.items()}
        return f"{prefix}{path}?{urlencode(pairs, doseq=True)}"

    def _send(
        self,
        connection: _UnixConnection,
        method: str,
        target: str,
        body: Any,
        headers: dict[str, str] | None,
    ) -> http.client.HTTPResponse:
        fields = dict(headers or {})
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "read"):
            body = json.dumps(body).encode()
            fields.setdefault("Content-Type", "application/json")
        connection.request(method, target, body, fields)
        return connection.getresponse()
