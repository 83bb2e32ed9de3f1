"""What a build gets from its client over a session: secrets, agents, credentials; and what it refuses."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from differential.builds import archive, build, error
from engine.test_build import builder, text
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError
from harness import Client, Longshored, SessionPeer
from harness.machine import mounts_under
from harness.session import GET_SECRET, HEALTH, Caller, Tree

from longshore.buildkit.proto import control_pb2 as control
from longshore.buildkit.proto import session_pb2 as pb
from longshore.buildkit.sessions import SessionManager
from longshore.errors import NotFound

__all__ = ["builder"]

SECRET = b"hunter2 is no\npassword"


def test_secrets_are_seen_by_the_step_alone(builder: Longshored) -> None:
    dockerfile = """FROM busybox
RUN --mount=type=secret,id=a ls -ln /run/secrets/ && cat /run/secrets/a && touch /made
RUN --mount=type=secret,id=a,target=/etc/given,mode=0440,uid=7,gid=8 ls -ln /etc/given
RUN --mount=type=secret,id=a,env=TOKEN,required=true printf "$TOKEN" | md5sum
RUN test ! -e /run/secrets && test ! -e /etc/given && test -z "$TOKEN" && ls /made
"""
    with SessionPeer(builder.socket, secrets={"a": SECRET}) as peer:
        shown = text(build(builder, archive(dockerfile), t="secret:1", session=peer.id))
        assert "password" in shown
        assert "-r--------    1 0        0" in shown
        assert "-r--r-----    1 7        8" in shown
        assert hashlib.md5(SECRET).hexdigest() in shown
        assert peer.seen == [("secret", "a")] * 3
        again = text(build(builder, archive(dockerfile), session=peer.id))
        assert again.count("Using cache") == 4
        assert len(peer.seen) == 3
    image = Client(builder.socket, "1.50").get("/images/secret:1/json").json
    history = Client(builder.socket, "1.50").get("/images/secret:1/history").json
    assert b"hunter2" not in json.dumps([image, history]).encode()
    assert not _on_disk(builder.data_root, b"hunter2")


def test_a_secret_that_changes_is_none_of_the_caches_business(builder: Longshored) -> None:
    dockerfile = archive("FROM busybox\nRUN --mount=type=secret,id=a cat /run/secrets/a\n")
    with SessionPeer(builder.socket, secrets={"a": b"one\n"}) as peer:
        assert "one\n" in text(build(builder, dockerfile, session=peer.id))
    with SessionPeer(builder.socket, secrets={"a": b"two\n"}) as peer:
        assert "Using cache" in text(build(builder, dockerfile, session=peer.id))
        assert "two\n" in text(build(builder, dockerfile, session=peer.id, nocache=1))


@pytest.mark.parametrize(
    ("secrets", "required", "why"),
    [
        ({}, "true", "secret a: not found"),
        (None, "true", "secret a: not found"),
        ({}, "false", ""),
        ({"a": bytes(500 << 10)}, "true", ""),
        ({"a": bytes((500 << 10) + 1)}, "false", "secret a: invalid secret size 512001"),
    ],
    ids=["missing", "not offered", "optional", "largest", "too large"],
)
def test_secrets_that_are_not_there(
    builder: Longshored, secrets: dict[str, bytes] | None, required: str, why: str
) -> None:
    step = f"FROM busybox\nRUN --mount=type=secret,id=a,required={required} ls /run/secrets/ || true\n"
    with SessionPeer(builder.socket, secrets=secrets) as peer:
        assert error(build(builder, archive(step), session=peer.id, nocache=1)) == why


def test_without_a_session_the_way_out_is_told(builder: Longshored) -> None:
    step = archive("FROM busybox\nRUN --mount=type=secret,id=a,required true\n")
    assert "need a client that speaks BuildKit's protocol" in error(build(builder, step))
    with pytest.raises(NotFound, match="no active session for x"):
        asyncio.run(SessionManager().get("prefix:x", patience=0.01))


def test_a_build_waits_for_its_session(builder: Longshored) -> None:
    peer = SessionPeer(builder.socket, secrets={"a": b"late\n"})
    timer = threading.Timer(1, peer.__enter__)
    timer.start()
    try:
        step = archive("FROM busybox\nRUN --mount=type=secret,id=a cat /run/secrets/a\n")
        assert "late\n" in text(build(builder, step, session=peer.id, nocache=1))
    finally:
        timer.join()
        peer.__exit__(None, None, None)


def test_agents(builder: Longshored) -> None:
    wait = "while ! test -e /go; do sleep 0.1; done"
    dockerfile = f"""FROM busybox
RUN --mount=type=ssh --mount=type=ssh,id=b,target=/b,mode=0666,uid=3 ls -ln $SSH_AUTH_SOCK /b; {wait}
RUN --mount=type=ssh,id=nobody test -z "$SSH_AUTH_SOCK" && test ! -e /b && test ! -e /run/buildkit
"""
    agents = {"default": lambda data: b"<" + data + b">", "b": lambda data: data.upper()}
    with SessionPeer(builder.socket, agents=agents) as peer, ThreadPoolExecutor() as pool:
        building = pool.submit(build, builder, archive(dockerfile), session=peer.id, nocache=1)
        root = _root_of_step(builder)
        assert _ask(root / "run/buildkit/ssh_agent.0", b"asked") == b"<asked>"
        assert _ask(root / "b", b"x" * 100_000) == b"X" * 100_000
        (root / "go").touch()
        shown = text(building.result())
        assert re.search(r"srw------- +1 0 +0 .* /run/buildkit/ssh_agent.0", shown)
        assert re.search(r"srw-rw-rw- +1 3 +0 .* /b", shown)
        assert not error(building.result())
        step = archive("FROM busybox\nRUN --mount=type=ssh,id=nobody,required true\n")
        assert "no SSH key 'nobody' forwarded" in error(build(builder, step, session=peer.id))


def _root_of_step(daemon: Longshored) -> Path:
    """The file system of the one container that runs, as its process sees it."""
    client = Client(daemon.socket, "1.50")
    for _ in range(300):
        for container in client.get("/containers/json").json:
            state = client.get(f"/containers/{container['Id']}/json").json["State"]
            if state["Running"]:
                return Path(f"/proc/{state['Pid']}/root")
        time.sleep(0.05)
    raise AssertionError("no step runs")


def _ask(path: Path, question: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        connection.sendall(question)
        answer = b""
        while len(answer) < len(question) or answer.count(b"<") > answer.count(b">"):
            more = connection.recv(65536)
            assert more, answer
            answer += more
        return answer


def test_requests_that_are_no_session(builder: Longshored) -> None:
    client = Client(builder.socket, "")

    def refused(**headers: str) -> tuple[int, str]:
        answer = client.request("POST", "/session", headers=headers)
        return answer.status, answer.message

    assert refused() == (400, "no upgrade proto in request")
    assert refused(Upgrade="tcp") == (400, "protocol tcp not supported")
    assert refused(Upgrade="h2c") == (400, "no session id in request")
    with SessionPeer(builder.socket) as peer:
        headers = {"Upgrade": "h2c", "X-Docker-Expose-Session-Uuid": peer.id}
        answer = client.request("POST", "/session", headers=headers)
        assert (answer.status, answer.message) == (400, f"session {peer.id} already exists")


async def _silent(stream: Any) -> None:
    await asyncio.sleep(3600)


SILENT_SECRET = {GET_SECRET: (_silent, Cardinality.UNARY_UNARY, pb.GetSecretRequest, pb.GetSecretResponse)}
SILENT_HEALTH = {HEALTH: (_silent, Cardinality.UNARY_UNARY, pb.HealthCheckRequest, pb.HealthCheckResponse)}
STEP = archive("FROM busybox\nRUN --mount=type=secret,id=a,required cat /run/secrets/a\n")


def test_a_session_that_vanishes_in_the_middle(builder: Longshored) -> None:
    with SessionPeer(builder.socket, serve=SILENT_SECRET) as peer:
        timer = threading.Timer(0.5, peer.vanish)
        timer.start()
        assert "the client's session ended" in error(build(builder, STEP, session=peer.id))


def test_a_session_that_never_answers(builder: Longshored) -> None:
    with SessionPeer(builder.socket, serve=SILENT_SECRET | SILENT_HEALTH, health_ms=1000) as peer:
        assert "the client's session ended" in error(build(builder, STEP, session=peer.id))


def test_answers_that_claim_to_be_huge(builder: Longshored) -> None:
    async def huge(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_initial_metadata()
        await stream._stream.send_data(b"\0\xff\xff\xff\xff" + bytes(1 << 20))

    serve = {GET_SECRET: (huge, Cardinality.UNARY_UNARY, pb.GetSecretRequest, pb.GetSecretResponse)}
    with SessionPeer(builder.socket, serve=serve) as peer:
        assert "larger than max" in error(build(builder, STEP, session=peer.id))


@pytest.mark.parametrize(
    "garbage",
    [bytes(4096), b"\xff" * 65536, b"\0\0\1\x99\0\0\0\0\0x" * 9],
    ids=["no stream", "an endless frame", "unknown frames"],
)
def test_a_session_that_speaks_no_http2(builder: Longshored, garbage: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(builder.socket))
        connection.settimeout(30)
        connection.sendall(
            b"POST /session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
            b"X-Docker-Expose-Session-Uuid: garbage\r\n"
            b"X-BuildKit-Session-Health-Custom-Timeout: 1000\r\n\r\n" + garbage
        )
        while connection.recv(65536):
            pass
    assert Client(builder.socket, "").get("/_ping").status == 200


@pytest.fixture(scope="module")
def own(
    root: None, busybox_archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Longshored, Path]]:
    """A daemon of these tests' own, whose ssh leads to the directory given, and asks the agent first."""
    place = tmp_path_factory.mktemp("ssh")
    (place / "bin").mkdir()
    ssh = place / "bin/ssh"
    ssh.write_text(
        f"""#!{sys.executable}
import os, socket, sys
assert sys.argv[1:3] == ["-F", "/dev/null"] and "-oIdentityFile=none" in sys.argv, sys.argv
if "SSH_AUTH_SOCK" not in os.environ:
    sys.exit("there is no key at all")
agent = socket.socket(socket.AF_UNIX)
agent.connect(os.environ["SSH_AUTH_SOCK"])
agent.sendall(b"may I?")
assert agent.recv(100) == b"yes", "the agent says no"
assert sys.argv[-2] == "git@example.org"
[hosts] = [each for each in sys.argv if "UserKnownHostsFile" in each]
assert hosts.endswith('.home/known_hosts"') and hosts.count('"') == 2, hosts
os.execvp("sh", ["sh", "-c", sys.argv[-1].replace("'r.git'", "{place}/r")])
"""
    )
    ssh.chmod(0o755)
    path = f"{ssh.parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    daemon = Longshored(env={"PATH": path, "SSH_AUTH_SOCK": "/this/machine's/own"})
    # Longer than the path of a socket may be, and in need of quotes.
    daemon.data_root = daemon.root / f"data in a {'deep ' * 20}place"
    try:
        daemon.start()
        daemon.load(busybox_archive)
        yield daemon, place
    finally:
        daemon.destroy()
        daemon.sweep()


def test_repositories_are_fetched_with_the_clients_keys(own: tuple[Longshored, Path]) -> None:
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    daemon, place = own
    _commit(place / "r", f="of the repository\n")
    step = archive("FROM busybox\nADD git@example.org:r.git /r\nRUN cat /r/f\n")
    with SessionPeer(daemon.socket, agents={"default": lambda data: b"yes"}) as peer:
        assert "of the repository" in text(build(daemon, step, session=peer.id))
    with SessionPeer(daemon.socket, agents={"default": lambda data: b"no!"}) as peer:
        assert "the agent says no" in error(build(daemon, step, session=peer.id))


def test_a_context_is_fetched_with_the_clients_keys(own: tuple[Longshored, Path]) -> None:
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    daemon, place = own
    _commit(place / "r", Dockerfile="FROM busybox\nRUN echo of the repository\n")
    remote = "git@example.org:r.git"
    with SessionPeer(daemon.socket, agents={"default": lambda data: b"yes"}) as peer:
        assert "of the repository" in text(build(daemon, b"", session=peer.id, remote=remote))


def test_the_machines_own_keys_are_nobodys(own: tuple[Longshored, Path]) -> None:
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    daemon, _ = own
    step = archive("FROM busybox\nADD git@example.org:r.git /r\n")
    assert "there is no key at all" in error(build(daemon, step))
    with SessionPeer(daemon.socket, agents={"other": bytes}) as peer:
        assert "there is no key at all" in error(build(daemon, step, session=peer.id))
    refused = build(daemon, b"", remote="git@example.org:r.git")
    assert "there is no key at all" in refused.message


def _commit(repository: Path, **files: str) -> None:
    _git("init", "-q", "-b", "main", str(repository))
    for name, content in files.items():
        (repository / name).write_text(content)
    _git("-C", str(repository), "add", "-A")
    _git("-C", str(repository), "-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x")


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def test_a_daemon_that_dies_leaves_no_secret(own: tuple[Longshored, Path]) -> None:
    daemon, _ = own
    step = archive("FROM busybox\nRUN --mount=type=secret,id=a --mount=type=ssh sleep 300\n")
    lent: dict[str, Any] = {"secrets": {"a": SECRET}, "agents": {"default": bytes}}
    with SessionPeer(daemon.socket, **lent) as peer, ThreadPoolExecutor() as pool:
        building = pool.submit(build, daemon, step, session=peer.id)
        _root_of_step(daemon)
        assert [each for each in mounts_under(daemon.root) if "/secret-" in each]
        daemon.kill()
        with pytest.raises((OSError, HTTPException)):
            building.result()
    daemon.start()
    deadline = time.monotonic() + 20
    while [each for each in mounts_under(daemon.root) if "/builds/" in each]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list((daemon.data_root / "builder/builds").iterdir())


def test_a_daemon_stops_although_a_solve_is_under_way(own: tuple[Longshored, Path]) -> None:
    daemon, _ = own
    step = b"FROM busybox\nRUN --mount=type=secret,id=a --mount=type=ssh sleep 300\n"
    trees: dict[str, Tree] = {"dockerfile": {"Dockerfile": step}}
    peer = SessionPeer(daemon.socket, secrets={"a": SECRET}, agents={"default": bytes}, trees=trees)
    with peer, Caller(daemon.socket) as caller:
        asked = control.SolveRequest(Ref="stopped", Session=peer.id, Frontend="dockerfile.v0")
        solving = caller.unary("/moby.buildkit.v1.Control/Solve", asked, control.SolveResponse)
        failed = caller.start(solving)
        _root_of_step(daemon)
        daemon.stop()
        with pytest.raises((GRPCError, StreamTerminatedError, ConnectionError)):
            failed.result(30)
    assert not list((daemon.data_root / "builder/builds").iterdir())
    assert not [each for each in mounts_under(daemon.root) if "/builds/" in each]
    assert "Traceback" not in daemon.log.read_text()
    daemon.start()
    assert daemon.client.get("/containers/json", all=1).json == []


def test_a_daemon_stops_although_a_session_is_open(own: tuple[Longshored, Path]) -> None:
    daemon, _ = own
    with SessionPeer(daemon.socket, secrets={"a": b""}):
        began = time.monotonic()
        daemon.stop()
        assert time.monotonic() - began < 4


def _on_disk(root: Path, needle: bytes) -> list[Path]:
    # containerd keeps each container's specification, its environment included, while there is the container.
    ours = [path for path in _files(root) if "containerd" not in path.relative_to(root).parts]
    assert ours
    return [path for path in ours if needle in path.read_bytes()]


def _files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
            yield path
