"""Log drivers that send elsewhere, with real peers, through the daemon."""

import gzip
import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from harness import DockerCLI

JOURNAL = Path("/run/systemd/journal/socket")
SCRIPT = "echo out; sleep 0.3; echo err >&2"


def receive(peer: socket.socket, count: int) -> list[str]:
    peer.settimeout(10)
    return [peer.recv(65536).decode() for _ in range(count)]


@pytest.mark.proves("HostConfig.LogConfig.Type", "HostConfig.LogConfig.Config")
def test_syslog_over_udp_is_sent_and_read_back(docker: DockerCLI) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        options = (
            *("--log-opt", f"syslog-address=udp://127.0.0.1:{peer.getsockname()[1]}"),
            *("--log-opt", "syslog-format=rfc5424", "--log-opt", "syslog-facility=local3"),
            *("--log-opt", "tag={{.ImageName}}/{{.Name}}"),
        )
        docker("run", "--name", "box", "--log-driver", "syslog", *options, "busybox", "sh", "-c", SCRIPT)
        out, err = receive(peer, 2)
    assert out.startswith("<158>1 ")
    assert out.endswith(" busybox/box - out\n")
    assert err.startswith("<155>1 ")
    assert "out" in docker("logs", "box").stdout


def test_a_peer_that_is_not_there_fails_the_start(docker: DockerCLI) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        log = ("--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://{address}")
        failed = docker("run", *log, "busybox", "true", check=False)
    expected = f"failed to initialize logging driver: dial tcp {address}: connect: connection refused"
    assert failed.returncode == 125
    assert expected in failed.stderr


def test_without_a_cache_nothing_can_be_read(docker: DockerCLI) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        address = f"syslog-address=udp://127.0.0.1:{peer.getsockname()[1]}"
        log = ("--log-driver", "syslog", "--log-opt", address, "--log-opt", "cache-disabled=true")
        docker("run", "--name", "box", *log, "busybox", "echo", "hi")
    failed = docker("logs", "box", check=False)
    assert "configured logging driver does not support reading" in failed.stderr


def test_journald_gets_its_fields(docker: DockerCLI) -> None:
    if JOURNAL.exists():
        pytest.skip("a journal runs here")
    JOURNAL.parent.mkdir(parents=True)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.bind(str(JOURNAL))
            log = ("--log-driver", "journald", "--label", "a.b=c", "--log-opt", "labels=a.b")
            docker("run", "--name", "box", *log, "busybox", "sh", "-c", SCRIPT)
            entries = receive(peer, 2)
    finally:
        JOURNAL.unlink(missing_ok=True)
        JOURNAL.parent.rmdir()
    assert entries[0].startswith("MESSAGE=out\nPRIORITY=6\n")
    assert "\nCONTAINER_NAME=box\n" in entries[0]
    assert "\nA_B=c\n" in entries[0]
    assert entries[1].startswith("MESSAGE=err\nPRIORITY=3\n")
    assert "out" in docker("logs", "box").stdout


def test_gelf_over_udp_comes_in_chunks(docker: DockerCLI) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(10)
        log = ("--log-driver", "gelf", "--log-opt", f"gelf-address=udp://127.0.0.1:{peer.getsockname()[1]}")
        noise = "head -c 6000 /dev/urandom | base64 -w 0; echo"
        docker("run", "--name", "box", *log, "busybox", "sh", "-c", noise)
        chunks = [peer.recv(2048)]
        while len(chunks) < chunks[0][11]:
            chunks.append(peer.recv(2048))
    assert {chunk[:10] for chunk in chunks} == {chunks[0][:10]}
    ordered = sorted(chunks, key=lambda chunk: chunk[10])
    message = json.loads(gzip.decompress(b"".join(chunk[12:] for chunk in ordered)))
    assert message["short_message"] + "\n" == docker("logs", "box").stdout
    assert message["_container_name"] == "box"
    assert message["_command"] == f"sh -c {noise}"
    assert message["level"] == 6


def test_fluentd_gets_msgpack(docker: DockerCLI) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        log = ("--log-driver", "fluentd", "--log-opt", f"fluentd-address=127.0.0.1:{server.getsockname()[1]}")
        docker("run", "--name", "box", *log, "--log-opt", "tag=t.{{.Name}}", "busybox", "echo", "hi")
        peer = server.accept()[0]
        with peer, peer.makefile("rb") as stream:
            tag, moment, record, _ = msgspec.msgpack.decode(stream.read())
    assert (tag, record["log"], record["source"]) == ("t.box", "hi", "stdout")
    assert record["container_name"] == "/box"
    assert moment > 1_700_000_000
    assert docker("logs", "box").stdout == "hi\n"


def test_splunk_gets_events_and_refuses_the_start_without(docker: DockerCLI) -> None:
    taken: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def answer(self) -> None:
            taken.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_OPTIONS = answer

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        log = ("--log-driver", "splunk", "--log-opt", "splunk-token=t", "--log-opt", f"splunk-url={url}")
        docker("run", "--name", "box", *log, "busybox", "echo", "hi")
        server.shutdown()
    event = json.loads(b"".join(taken))
    assert (event["event"]["line"], event["event"]["source"]) == ("hi", "stdout")
    assert docker("logs", "box").stdout == "hi\n"
    failed = docker("run", *log, "busybox", "true", check=False)
    told = f'failed to initialize logging driver: Options "{url}/services/collector/event/1.0": dial tcp'
    assert told in failed.stderr
