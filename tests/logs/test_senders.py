"""What the drivers splunk and fluentd say to their peers."""

from __future__ import annotations

import gzip
import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from logs.support import info

from longshore.errors import InvalidParameter
from longshore.logs.driver import LogDriver, create_log_driver, validate_log_opts

NOW = 1_700_000_000_120_000_000


class Collector:
    """An HTTP Event Collector; `statuses` are what it answers, 200 once they are used up."""

    def __init__(self) -> None:
        """`requests` are those that were answered with 200."""
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = collector.statuses.pop(0) if collector.statuses else 200
                if status == 200:
                    collector.requests.append((f"{self.command} {self.path}", headers, body))
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_OPTIONS = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def events(self) -> list[dict[str, Any]]:
        """All that was taken."""
        decoder, events = json.JSONDecoder(), []
        for line, headers, body in self.requests:
            if line.startswith("POST"):
                text = (gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body).decode()
                while text:
                    event, end = decoder.raw_decode(text)
                    events.append(event)
                    text = text[end:]
        return events

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def splunk(directory: Path, url: str, **options: str) -> LogDriver:
    given = {f"splunk-{name.replace('_', '-')}": value for name, value in options.items()}
    tag = {"tag": given.pop("splunk-tag")} if "tag" in options else {}
    options = {"splunk-url": url, "splunk-token": "secret", "labels": "a", **tag, **given}
    driver = create_log_driver("splunk", options, info(directory, "splunk", labels={"a": "1"}))
    assert driver is not None
    return driver


LINES = b'plain\n{"a": [1]}\n\n'
ATTRS = {"tag": "c" * 12, "attrs": {"a": "1"}}


@pytest.mark.parametrize(
    ("form", "events"),
    [
        ("inline", [{"line": line, "source": "stdout", **ATTRS} for line in ("plain", '{"a": [1]}', "")]),
        ("json", [{"line": line, "source": "stdout", **ATTRS} for line in ("plain", {"a": [1]}, "")]),
        ("raw", [f"{'c' * 12} a=1 plain", f'{"c" * 12} a=1 {{"a": [1]}}']),
    ],
)
def test_splunk_formats(tmp_path: Path, collector: Collector, form: str, events: list[object]) -> None:
    driver = splunk(tmp_path, collector.url, format=form, index="main", sourcetype="t", source="s")
    driver.log("stdout", LINES, NOW, False)
    driver.close()
    verified = collector.requests[0]
    assert verified[0] == "OPTIONS /services/collector/event/1.0"
    assert all(headers["authorization"] == "Splunk secret" for _, headers, _ in collector.requests)
    assert [event["event"] for event in collector.events] == events
    about = {"host": socket.gethostname(), "index": "main", "sourcetype": "t", "source": "s"}
    assert collector.events[0] == {"event": events[0], "time": "1700000000.120000", **about}


def test_splunk_compresses_and_names_its_channel(tmp_path: Path, collector: Collector) -> None:
    options = {"gzip": "true", "gzip_level": "9", "index_acknowledgment": "1", "tag": ""}
    driver = splunk(tmp_path, collector.url, verify_connection="false", **options)
    driver.log("stderr", b"".join(b"%d\n" % number for number in range(2500)), NOW, False)
    driver.close()
    assert [event["event"]["line"] for event in collector.events] == [str(number) for number in range(2500)]
    assert "tag" not in collector.events[0]["event"]
    assert {line.split()[0] for line, _, _ in collector.requests} == {"POST"}
    channels = {headers["x-splunk-request-channel"] for _, headers, _ in collector.requests}
    assert len(channels) == 1


def test_splunk_tries_again_what_was_not_taken(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLUNK_LOGGING_DRIVER_POST_MESSAGES_FREQUENCY", "10ms")
    driver = splunk(tmp_path, collector.url, verify_connection="false")
    collector.statuses = [503, 503]
    driver.log("stdout", b"one\n", NOW, False)
    driver.log("stdout", b"two\n", NOW, False)
    driver.close()
    assert [event["event"]["line"] for event in collector.events] == ["one", "two"]
    assert not collector.statuses


def test_splunk_sends_lines_of_eighty_kilobytes_whole(tmp_path: Path, collector: Collector) -> None:
    driver = splunk(tmp_path, collector.url)
    assert driver.piece == 80 * 1024
    driver.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "splunk: splunk-url is expected"),
        ({"splunk-url": "http://h:1"}, "splunk: splunk-token is expected"),
        ({"splunk-url": "h:1"}, "splunk: expected format scheme://dns_name_or_ip:port for splunk-url"),
        ({"splunk-url": "http://h/x"}, "splunk: expected format scheme://dns_name_or_ip:port for splunk-url"),
        (
            {"splunk-format": "x"},
            "unknown format specified x, supported formats are inline, json and raw",
        ),
        (
            {"splunk-gzip-level": "10"},
            "not supported level '10' for splunk-gzip-level (supported values between -1 and 9)",
        ),
        ({"splunk-gzip": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
        ({"splunk-capath": "/nope"}, "open /nope: no such file or directory"),
    ],
)
def test_splunk_refuses(tmp_path: Path, options: dict[str, str], message: str) -> None:
    known = {"splunk-url": "http://h:1", "splunk-token": "t"}
    full = options if not options or "splunk-url" in options else {**known, **options}
    with pytest.raises((InvalidParameter, OSError)) as raised:
        create_log_driver("splunk", full, info(tmp_path, "splunk"))
    assert str(raised.value) == message
    with pytest.raises(InvalidParameter, match="unknown log opt 'x' for splunk log driver"):
        validate_log_opts("splunk", {"x": "1"})


def test_splunk_says_why_it_cannot_connect(tmp_path: Path, collector: Collector) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(OSError, match=r"^Options \"http://") as raised:
            splunk(tmp_path, f"http://{place}")
    assert str(raised.value).endswith(f": dial tcp {place}: connect: connection refused")
    collector.statuses = [401]
    with pytest.raises(OSError, match=r"^splunk: failed to verify connection - 401 Unauthorized - \{\}$"):
        splunk(tmp_path, collector.url)


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-keyout", key, "-out", cert, "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name}"),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def test_splunk_over_tls(tmp_path: Path, collector: Collector) -> None:
    cert, key = certificate(tmp_path, "SplunkServerDefaultCert")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    collector.server.socket = context.wrap_socket(collector.server.socket, server_side=True)
    url = collector.url.replace("http:", "https:")
    with pytest.raises(OSError, match="tls: failed to verify certificate: self-signed certificate"):
        splunk(tmp_path, url)
    splunk(tmp_path, url, insecureskipverify="true").close()
    driver = splunk(tmp_path, url, capath=str(cert), caname="SplunkServerDefaultCert")
    driver.log("stdout", b"hi\n", NOW, False)
    driver.close()
    assert [event["event"]["line"] for event in collector.events] == ["hi"]


class Forward:
    """A fluentd. Each connection is handed to `serve`."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self._serve = serve
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            with connection:
                self._serve(connection)


@pytest.fixture
def forward() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    servers: list[Forward] = []

    def start(serve: Callable[[socket.socket], None]) -> str:
        servers.append(Forward(serve))
        return f"127.0.0.1:{servers[-1].socket.getsockname()[1]}"

    yield start
    for server in servers:
        server.socket.close()


def fluentd(directory: Path, address: str, **options: str) -> LogDriver:
    given = {f"fluentd-{name.replace('_', '-')}": value for name, value in options.items()}
    driver = create_log_driver("fluentd", {"fluentd-address": address, **given}, info(directory, "fluentd"))
    assert driver is not None
    return driver


def messages(data: bytes) -> list[list[Any]]:
    """A stream of msgpack arrays of four, of which the first string is the tag of twelve letters."""
    starts = [match.start() for match in re.finditer(b"\x94\xac" + b"c" * 12, data)]
    return [
        msgspec.msgpack.decode(data[start:end])
        for start, end in zip(starts, [*starts[1:], len(data)], strict=True)
    ]


def test_fluentd_waits_for_acknowledgements(tmp_path: Path, forward: Any) -> None:
    """The first connection takes two messages and acknowledges one; the rest comes again on the next."""
    taken: list[list[Any]] = []

    def serve(connection: socket.socket) -> None:
        data, acked = b"", 0
        while chunk := connection.recv(65536):
            data += chunk
            found = messages(data)
            for each in found[acked:]:
                taken.append(each)
                acked += 1
                connection.sendall(msgspec.msgpack.encode({"ack": each[3]["chunk"]}))
                if len(taken) == 1:
                    return  # And the rest is lost on the way.

    driver = fluentd(tmp_path, forward(serve), request_ack="true", retry_wait="10ms")
    driver.log("stdout", b"one\ntwo\nthree\n", NOW, False)
    driver.close()
    assert [each[2]["log"] for each in taken] == ["one", "two", "three"]


def test_fluentd_connects_later_if_it_may(tmp_path: Path, forward: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(OSError, match="connection refused"):
            fluentd(tmp_path, place)
        driver = fluentd(tmp_path, place, **{"async": "true"}, retry_wait="10ms")
    driver.log("stdout", b"early\n", NOW, False)
    received = bytearray()
    done = threading.Event()
    host, port = place.split(":")
    with socket.create_server((host, int(port))) as server:

        def take() -> None:
            with server.accept()[0] as connection:
                while chunk := connection.recv(65536):
                    received.extend(chunk)
            done.set()

        threading.Thread(target=take, daemon=True).start()
        driver.close()
        assert done.wait(10)
    tag, moment, record, option = messages(bytes(received))[0]
    assert (tag, moment, record["log"], option) == ("c" * 12, NOW // 10**9, "early", {})


def test_fluentd_gives_up_after_its_retries(tmp_path: Path, forward: Any) -> None:
    calls: list[int] = []

    def serve(connection: socket.socket) -> None:
        calls.append(1)

    driver = fluentd(tmp_path, forward(serve), request_ack="1", max_retries="3", retry_wait="1ms")
    driver.log("stdout", b"lost\n", NOW, False)
    driver.close()
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("address", "udp://h", "invalid fluentd-address (udp://h): unsupported scheme: 'udp'"),
        ("address", "tcp://h/x", "invalid fluentd-address (tcp://h/x): should not contain a path element"),
        ("buffer-limit", "x", "invalid size: 'x'"),
        ("retry-wait", "5", 'time: missing unit in duration "5"'),
        ("max-retries", "-1", 'strconv.ParseUint: parsing "-1": invalid syntax'),
        ("max-retries", "2147483648", "invalid fluentd-max-retries: value out of range"),
        ("async", "x", 'strconv.ParseBool: parsing "x": invalid syntax'),
        (
            "async-reconnect-interval",
            "1ms",
            'invalid value for fluentd-async-reconnect-interval: value ("1ms") must be between 100ms and 10s',
        ),
        (
            "write-timeout",
            "-1s",
            "invalid value for fluentd-write-timeout: value must be a duration that is non-negative",
        ),
        (
            "read-timeout",
            "x",
            'invalid value for fluentd-read-timeout: value must be a duration: time: invalid duration "x"',
        ),
    ],
)
def test_fluentd_refuses(name: str, value: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        validate_log_opts("fluentd", {f"fluentd-{name}": value})
    assert raised.value.message == message
