"""`longshore trace`: fetch the trace of a container from the daemon and draw it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import sys
from urllib.parse import quote, urlsplit

import msgspec

from longshore.cli.waterfall import draw
from longshore.tracing import Trace

DEFAULT_HOST = "unix:///var/run/docker.sock"


def run(container: str | None, host: str | None, *, as_json: bool) -> int:
    """Print the latest trace of `container`, or of anything. Returns the exit status."""
    host = host or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    try:
        trace = fetch(host, container)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        print(f"longshore trace: {host}: {exc}", file=sys.stderr)
        return 1
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(trace)).decode())
        return 0
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    for line in draw(trace, shutil.get_terminal_size((100, 24)).columns, colour):
        print(line)
    return 0


def fetch(host: str, container: str | None) -> Trace:
    """Ask the daemon at `host` (unix:// or tcp://). ValueError carries the daemon's words if it has none."""
    connection = _connect(host)
    try:
        connection.request("GET", "/longshore/trace" + (f"/{quote(container, safe='')}" if container else ""))
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(_message(body) or f"the daemon answered {answer.status}: it may not be longshored")
    if container:
        return msgspec.json.decode(body, type=Trace)
    traces = msgspec.json.decode(body, type=list[Trace])
    if not traces:
        raise ValueError("nothing was started since the daemon came up")
    return traces[-1]


def _connect(host: str) -> http.client.HTTPConnection:
    address = urlsplit(host)
    if address.scheme == "unix":
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(30)
        connection.sock.connect(address.path)
        return connection
    if address.scheme in ("tcp", "http"):
        return http.client.HTTPConnection(address.hostname or "localhost", address.port or 2375, timeout=30)
    raise ValueError("only unix:// and tcp:// addresses are understood")


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return ""
