"""POST /build with version=2: BuildKit as docker's CLI spoke to it before buildx."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from differential.builds import archive
from engine.test_build import builder
from grpclib.const import Cardinality
from harness import Client, DockerCLI, Longshored, Response, SessionPeer
from harness.machine import mounts_under
from harness.session import DIFF_COPY, SEND, Packets, Tree, send_tree, stat_of, tree_stats

from longshore.buildkit.proto import control_pb2 as control
from longshore.buildkit.proto import session_pb2 as pb

__all__ = ["builder"]


class Outcome:
    """What a build with version=2 told."""

    def __init__(self, answer: Response) -> None:
        assert answer.status == 200, answer.body
        self.names: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.logs: dict[str, str] = {}
        self.statuses: list[str] = []
        self.image = self.error = self.text = ""
        for message in [json.loads(line) for line in answer.body.split(b"\r\n") if line]:
            self.error += message.get("error", "")
            self.text += message.get("stream", "")
            if message.get("id") == "moby.image.id":
                self.image = message["aux"]["ID"]
            elif message.get("id") == "moby.buildkit.trace":
                self._take(control.StatusResponse.FromString(base64.b64decode(message["aux"])))

    def _take(self, status: control.StatusResponse) -> None:
        for vertex in status.vertexes:
            self.names[vertex.digest] = vertex.name
            done = "done" if vertex.HasField("completed") else "running"
            self.states[vertex.name] = vertex.error or ("cached" if vertex.cached else done)
            assert all(each in self.names for each in vertex.inputs)
        for log in status.logs:
            name = self.names[log.vertex]
            self.logs[name] = self.logs.get(name, "") + log.msg.decode()
        self.statuses += [each.name for each in status.statuses if each.HasField("completed")]


def solve(daemon: Longshored, peer: SessionPeer, body: bytes = b"", **query: Any) -> Outcome:
    """Build what the peer offers."""
    asked = {"version": 2, "session": peer.id, "remote": "client-session", **query}
    return Outcome(Client(daemon.socket, "1.41", timeout=120).request("POST", "/build", body, query=asked))


def offering(daemon: Longshored, dockerfile: str, context: Tree | None = None, **more: Any) -> SessionPeer:
    """A session with a Dockerfile and a context."""
    trees: dict[str, Tree] = {"dockerfile": {"Dockerfile": dockerfile.encode()}, "context": context or {}}
    return SessionPeer(daemon.socket, trees=trees, **more)


def test_a_build_tells_of_its_steps(builder: Longshored) -> None:
    dockerfile = """FROM busybox AS one
RUN echo out; echo err >&2
FROM busybox
ENV A=b
COPY --from=one /etc/passwd /p
COPY dir /d
RUN cat /d/f; ls -ln /d
"""
    context: Tree = {"dir/f": b"content\n", "dir/link": "/etc", "dir/sub": None, "other": b""}
    with offering(builder, dockerfile, context) as peer:
        told = solve(builder, peer, t=["v2:1", "v2:2"])
        assert not told.error
        assert told.states == {
            "[internal] load build definition from Dockerfile": "done",
            "[internal] load .dockerignore": "done",
            "[internal] load build context": "done",
            "[one 1/2] FROM docker.io/library/busybox:latest": "cached",
            "[one 2/2] RUN echo out; echo err >&2": "done",
            "[stage-1 1/4] FROM docker.io/library/busybox:latest": "cached",
            "[stage-1 2/4] COPY --from=one /etc/passwd /p": "done",
            "[stage-1 3/4] COPY dir /d": "done",
            "[stage-1 4/4] RUN cat /d/f; ls -ln /d": "done",
            "exporting to image": "done",
        }
        assert sorted(told.logs["[one 2/2] RUN echo out; echo err >&2"].split()) == ["err", "out"]
        assert "content\n" in told.logs["[stage-1 4/4] RUN cat /d/f; ls -ln /d"]
        assert "naming to docker.io/library/v2:2" in told.statuses
        assert f"writing image {told.image}" in told.statuses
        assert (
            builder.docker.out("inspect", "-f", "{{.Id}} {{.RepoTags}}", "v2:1")
            == f"{told.image} [v2:1 v2:2]"
        )
        again = solve(builder, peer)
        assert again.image == told.image
        steps = [state for name, state in again.states.items() if re.search(r"\d/\d", name)]
        assert steps == ["cached"] * 6
        quiet = solve(builder, peer, q=1)
        assert (quiet.text, quiet.states) == (f"{told.image}\n", {})


def test_a_failure_names_its_step(builder: Longshored) -> None:
    with offering(builder, "FROM busybox\nRUN echo why; exit 3\nRUN true\n") as peer:
        told = solve(builder, peer)
    reason = 'process "/bin/sh -c echo why; exit 3" did not complete successfully: exit code: 3'
    assert told.error == told.states["[2/3] RUN echo why; exit 3"] == reason
    assert "[3/3] RUN true" not in told.states
    with offering(builder, "FROM busybox\nCOPY nowhere /\n") as peer:
        assert "nowhere" in solve(builder, peer).error
    with offering(builder, "") as peer:
        assert solve(builder, peer).error == "the Dockerfile cannot be empty"
    with offering(builder, "FROM busybox") as peer:
        assert "open x: no such file" in solve(builder, peer, dockerfile="x").error


def test_only_what_is_needed_is_fetched(builder: Longshored) -> None:
    with offering(builder, "FROM busybox\nRUN true\n", {"f": bytes(1 << 20)}) as peer:
        assert not solve(builder, peer).error
        assert [what for what, _ in peer.seen] == ["sync dockerfile"]
    trees: dict[str, Tree] = {
        "dockerfile": {"a.df": b"FROM busybox\nCOPY . /all\nRUN ls /all\n"},
        "context": {".dockerignore": b"/x\n!y/keep\ny\n", "f": b""},
    }
    with SessionPeer(builder.socket, trees=trees) as peer:
        assert not solve(builder, peer, dockerfile="a.df").error
        assert [what for what, _ in peer.seen] == ["sync dockerfile", "sync context", "sync context"]
    trees["dockerfile"]["a.df.dockerignore"] = "caf\N{LATIN SMALL LETTER E WITH ACUTE}\n".encode()
    with SessionPeer(builder.socket, trees=trees) as peer:
        assert not solve(builder, peer, dockerfile="a.df").error
        assert [what for what, _ in peer.seen] == ["sync dockerfile", "sync context"]
        assert peer.seen[1][1]["exclude-patterns"] == ["caf%C3%A9"]
        assert peer.seen[1][1]["exclude-patterns-encoded"] == ["1"]


@pytest.mark.parametrize(
    ("steps", "paths"),
    [
        ("COPY a ./b/ /x/", ["a", "b"]),
        ("COPY a /x\nRUN --mount=source=c/d,target=/m true", ["a", "c/d"]),
        ("ADD a /x\nCOPY <<E /y\nE\n", ["a"]),
        ("COPY --from=busybox /etc /e\nCOPY a /x", ["a"]),
        ("FROM busybox AS unused\nCOPY c /\nFROM busybox\nCOPY a /x", ["a"]),
        ("COPY * /x/", None),
        ("COPY . /x/", None),
        ("COPY a/.. /x/", None),
        ("COPY a /y\nRUN --mount=target=/m true", None),
        ("ENV V=a\nCOPY $V /x", None),
    ],
)
def test_of_a_context_only_what_is_taken_is_asked_for(
    builder: Longshored, steps: str, paths: list[str] | None
) -> None:
    context: Tree = {"a": b"a", "b/f": b"b", "c/d/f": b"d"}
    with offering(builder, f"FROM busybox\n{steps}\n", context) as peer:
        told = solve(builder, peer)
        assert not told.error
        assert peer.seen[-1][0] == "sync context"
        assert peer.seen[-1][1].get("followpaths") == paths


def test_triggers_take_what_nobody_could_foresee(builder: Longshored) -> None:
    with offering(builder, "FROM busybox\nONBUILD COPY t /t\n") as peer:
        assert not solve(builder, peer, t="triggers:1").error
    context: Tree = {"a": b"a\n", "t": b"t\n"}
    with offering(builder, "FROM triggers:1\nCOPY a /a\nRUN cat /a /t\n", context) as peer:
        told = solve(builder, peer)
        assert told.logs["[4/4] RUN cat /a /t"] == "a\nt\n"
        assert "[2/4] ONBUILD COPY t /t" in told.states
        followed = [seen[1].get("followpaths") for seen in peer.seen if seen[0] == "sync context"]
        assert followed == [[".dockerignore"], None, [".dockerignore"], ["a"]]


def test_large_contexts_and_many_files(builder: Longshored) -> None:
    context: Tree = {f"many/{n:04}": b"%d\n" % n for n in range(500)}
    context |= {"big": bytes(20 << 20), "empty": b""}
    with offering(
        builder, "FROM busybox\nCOPY . /c\nRUN cat /c/many/* | md5sum; wc -c /c/big\n", context
    ) as peer:
        told = solve(builder, peer)
    assert not told.error
    printed = told.logs["[3/3] RUN cat /c/many/* | md5sum; wc -c /c/big"]
    assert f"{20 << 20} /c/big" in printed


def test_contexts_that_come_with_another_request(builder: Longshored) -> None:
    body = archive("FROM busybox\nCOPY f /f\nRUN cat /f\n", {"f": b"in the archive\n"})
    client = Client(builder.socket, "1.41")
    with SessionPeer(builder.socket) as peer:
        told = solve(builder, peer, body, remote="", buildid="b0")
        assert "in the archive" in told.logs["[3/3] RUN cat /f"]
        query = {"version": 2, "buildid": "upload-request:b1"}
        bringing = threading.Thread(
            target=client.request, args=("POST", "/build", body), kwargs={"query": query}
        )
        bringing.start()
        assert not solve(builder, peer, remote="upload-request", buildid="b1").error
        bringing.join()


def test_a_context_that_nobody_reads(builder: Longshored) -> None:
    client = Client(builder.socket, "1.41")
    query = {"version": 2, "buildid": "upload-request:b2"}
    with SessionPeer(builder.socket) as peer:
        bringing = threading.Thread(
            target=client.request, args=("POST", "/build", b""), kwargs={"query": query}
        )
        bringing.start()
        told = solve(builder, peer, remote="upload-request", buildid="b2")
        assert "Cannot locate specified Dockerfile" in told.error
        bringing.join(10)
        assert not bringing.is_alive()


def test_secrets_reach_a_step(builder: Longshored) -> None:
    step = "RUN --mount=type=secret,id=s cat /run/secrets/s"
    with offering(builder, f"FROM busybox\n{step}\n", secrets={"s": b"told\n"}) as peer:
        assert solve(builder, peer, nocache=1).logs[f"[2/2] {step}"] == "told\n"


def test_a_build_can_be_cancelled(builder: Longshored) -> None:
    client = Client(builder.socket, "1.41")
    with offering(builder, "FROM busybox\nRUN sleep 300\n") as peer:
        outcomes: list[Outcome] = []
        building = threading.Thread(target=lambda: outcomes.append(solve(builder, peer, buildid="mine")))
        building.start()
        while not client.get("/containers/json").json:
            time.sleep(0.05)
        assert client.post("/build/cancel").status == 400
        assert client.post("/build/cancel", id="another").status == 204
        assert client.post("/build/cancel", id="mine").status == 204
        building.join(30)
        assert outcomes[0].error == "context canceled"
        assert outcomes[0].states["[2/2] RUN sleep 300"] == "context canceled"


def test_what_cannot_be(builder: Longshored) -> None:
    client = Client(builder.socket, "1.41")
    answer = client.post("/build", version=2, outputs='[{"Type":"oci"}]')
    assert (answer.status, "exporter 'oci' could not be found" in answer.message) == (400, True)
    assert client.post("/build", version=2, t="a@sha256:" + "0" * 64).status == 400
    assert client.post("/build", version=3).status == 400
    # Without an id, contexts of several builds would be mixed up.
    assert client.post("/build", version=2, buildid="upload-request:").status == 400
    told = Outcome(client.post("/build", version=2, remote="upload-request"))
    assert "needs a build with an id" in told.error
    outputs = '[{"Type":"local"}]'
    query = {"version": 2, "outputs": outputs}
    told = Outcome(client.request("POST", "/build", archive("FROM busybox\n"), query=query))
    assert told.error == "no active session: none is named"
    told = Outcome(client.post("/build", version=2, remote="client-session"))
    assert told.error == "the build needs a session with its client, and none is named"


# hostile clients


def _sending(packets: Packets) -> dict[str, Any]:
    """A session whose Dockerfile is good, and whose context is `packets`."""

    async def serve(stream: Any) -> None:
        name = stream.metadata["dir-name"]
        if name == "dockerfile":
            await send_tree(stream, tree_stats({"Dockerfile": b"FROM busybox\nCOPY . /c\nRUN ls -lR /c\n"}))
        elif "followpaths" in stream.metadata:
            await send_tree(stream, [])
        else:
            await send_tree(stream, packets)

    return {DIFF_COPY: (serve, Cardinality.STREAM_STREAM, pb.Packet, pb.Packet)}


DIR = stat_of("d", None)


@pytest.mark.parametrize(
    ("packets", "why"),
    [
        ([(stat_of("../evil", b"x"), b"x")], "out of order"),
        ([(stat_of("..", None), b"")], "invalid path"),
        ([(DIR, b""), (stat_of("d/..", b"x"), b"x")], "invalid path"),
        ([(stat_of("/etc/evil", b"x"), b"x")], "out of order"),
        ([(stat_of("d/f", b"x"), b"x")], "has no directory"),
        ([(stat_of("", b"x"), b"x")], "invalid path"),
        ([(stat_of("a\0b", b"x"), b"x")], "invalid path"),
        ([(stat_of("f", b"x"), b"x"), (stat_of("f", b"x"), b"x")], "out of order"),
        ([(stat_of("f", b"x"), b"x"), (stat_of("a", b"x"), b"x")], "out of order"),
        # A link first, then a file through it.
        ([(stat_of("l", "/etc"), b""), (stat_of("l/evil", b"x"), b"x")], "has no directory"),
        ([(stat_of("h", b"", linkname=b"../../../etc/passwd"), b"")], "invalid hardlink"),
        ([(stat_of("h", b"", linkname=b"/etc/passwd"), b"")], "link"),
        ([(stat_of("l", "/etc"), b""), (stat_of("m", b"", linkname=b"l/passwd"), b"")], "link"),
        ([(stat_of("f", b"x", modTime=1 << 62, uid=1 << 31), b"x")], ""),
        ([(stat_of("/".join("d" * 300), None), b"")], "invalid path"),
    ],
)
def test_paths_that_lead_elsewhere(builder: Longshored, packets: Packets, why: str) -> None:
    with SessionPeer(builder.socket, serve=_sending(packets)) as peer:
        error = solve(builder, peer, nocache=1).error
    assert why in error and bool(why) == bool(error), error
    assert not Path("/etc/evil").exists()


def test_links_of_the_client_stay_links(builder: Longshored) -> None:
    packets = [(stat_of("away", "/etc/shadow"), b""), (stat_of("up", "../../../../etc/shadow"), b"")]
    with SessionPeer(builder.socket, serve=_sending(packets)) as peer:
        told = solve(builder, peer, nocache=1)
    listed = told.logs["[3/3] RUN ls -lR /c"]
    assert "away -> /etc/shadow" in listed and "up -> ../../../../etc/shadow" in listed


def test_sizes_that_are_lies(builder: Longshored) -> None:
    packets = [(stat_of("long", b"", size=1), bytes(300_000)), (stat_of("short", b"", size=1 << 50), b"abc")]
    with SessionPeer(builder.socket, serve=_sending(packets)) as peer:
        told = solve(builder, peer, nocache=1)
    assert not told.error
    listed = told.logs["[3/3] RUN ls -lR /c"]
    assert re.search(r" 300000 .* long", listed) and re.search(r" 3 .* short", listed)


def _misbehaving(what: str) -> dict[str, Any]:
    stat, data = pb.Packet.PACKET_STAT, pb.Packet.PACKET_DATA

    async def serve(stream: Any) -> None:
        if what == "error":
            await stream.send_message(pb.Packet(type=pb.Packet.PACKET_ERR, data=b"my disk broke"))
        elif what == "unasked":
            await stream.send_message(pb.Packet(type=data, ID=7, data=b"x"))
        elif what == "another":
            await stream.send_message(pb.Packet(type=stat, stat=stat_of("Dockerfile", b"x")))
            await stream.send_message(pb.Packet(type=stat))
            await stream.send_message(pb.Packet(type=data, ID=3, data=b"x"))
        elif what == "huge":
            await stream.send_initial_metadata()
            await stream._stream.send_data(b"\0\x7f\xff\xff\xff" + bytes(1 << 20))
        elif what == "early":
            return
        elif what == "nonsense":
            await stream.send_initial_metadata()
            await stream._stream.send_data(b"\0\0\0\0\4\xff\xff\xff\xff")
        await asyncio.sleep(20)

    return {DIFF_COPY: (serve, Cardinality.STREAM_STREAM, pb.Packet, pb.Packet)}


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("error", "my disk broke"),
        ("unasked", "nobody asked for"),
        ("another", "invalid file request 3"),
        ("huge", "larger than max"),
        ("early", "ended before all was sent"),
        ("nonsense", ""),
    ],
)
def test_clients_that_misbehave(builder: Longshored, what: str, why: str) -> None:
    with SessionPeer(builder.socket, serve=_misbehaving(what)) as peer:
        error = solve(builder, peer).error
    assert error and why in error
    assert Client(builder.socket, "").get("/_ping").status == 200


def test_a_client_that_vanishes_while_it_sends(builder: Longshored) -> None:
    vanished = threading.Event()

    async def serve(stream: Any) -> None:
        await stream.send_message(
            pb.Packet(type=pb.Packet.PACKET_STAT, stat=stat_of("Dockerfile", b"", size=1 << 20))
        )
        await stream.send_message(pb.Packet(type=pb.Packet.PACKET_STAT))
        await stream.recv_message()
        await stream.send_message(pb.Packet(type=pb.Packet.PACKET_DATA, ID=0, data=b"FROM"))
        vanished.set()
        peer.vanish()

    served = {DIFF_COPY: (serve, Cardinality.STREAM_STREAM, pb.Packet, pb.Packet)}
    with SessionPeer(builder.socket, serve=served) as peer:
        assert "the client's session ended" in solve(builder, peer).error
    assert vanished.is_set()


@pytest.mark.parametrize(("kind", "message"), [("local", pb.Packet), ("tar", pb.BytesMessage)])
def test_a_client_that_vanishes_while_it_is_sent_files(builder: Longshored, kind: str, message: type) -> None:
    async def receive(stream: Any) -> None:
        await stream.recv_message()
        peer.vanish()

    mounts = mounts_under(builder.root)
    served = {SEND: (receive, Cardinality.STREAM_STREAM, message, message)}
    peer = offering(builder, "FROM busybox\n", serve=served)
    with peer:
        outputs = json.dumps([{"Type": kind, "Attrs": {}}])
        assert "the client's session ended" in solve(builder, peer, outputs=outputs).error
    deadline = time.monotonic() + 30
    while mounts_under(builder.root) != mounts:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# the real client


@pytest.fixture(scope="module")
def old_cli() -> str:
    """A docker CLI of before 23.0, which speaks BuildKit without buildx."""
    for directory in os.environ["PATH"].split(":"):
        program = shutil.which("docker", path=directory)
        if program is None:
            continue
        version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
        found = re.search(r"version (\d+)\.", version)
        if found and int(found[1]) < 23:
            return program
    pytest.skip("there is no docker CLI of before 23.0, which has a BuildKit client of its own")


@pytest.fixture
def cli(builder: Longshored, old_cli: str, tmp_path: Path) -> Iterator[DockerCLI]:
    """The old CLI on the session's daemon, BuildKit switched on."""
    docker = DockerCLI(builder.host, tmp_path / "config")
    docker.program = old_cli
    docker.env["DOCKER_BUILDKIT"] = "1"
    yield docker


def test_the_cli_builds(cli: DockerCLI, tmp_path: Path) -> None:
    context = tmp_path / "context"
    (context / "sub").mkdir(parents=True)
    (context / "sub/target").write_text("reached")
    (context / "link").symlink_to("sub")
    (context / "f").write_text("content")
    (context / "hidden").write_text("hidden")
    (context / ".dockerignore").write_text("hidden\n")
    (context / "Dockerfile").write_text(
        "# syntax=docker/dockerfile:1\nFROM busybox\nCOPY . /c\nRUN ls /c; echo >&2 e\n"
    )
    shown = cli("build", "--progress=plain", "-t", "cli:1", "--iidfile", "id", ".", cwd=context)
    assert "[3/3] RUN ls /c; echo >&2 e" in shown.stderr
    assert "hidden" not in shown.stderr
    assert "naming to docker.io/library/cli:1 done" in shown.stderr
    id = cli.out("inspect", "-f", "{{.Id}}", "cli:1")
    assert (context / "id").read_text() == id
    (context / "id").unlink()
    assert cli("build", "--progress=plain", ".", cwd=context).stderr.count("CACHED") == 3
    assert cli("build", "-q", ".", cwd=context).stdout.strip() == id
    assert "ENV" not in cli("build", "-", input="FROM busybox\nENV A=b\n").stderr
    (context / "Dockerfile").write_text("FROM busybox\nCOPY link/target /t\nRUN cat /t\n")
    assert "reached" in cli("build", "--progress=plain", ".", cwd=context).stderr
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo said; exit 7\n")
    failed = cli("build", "--progress=plain", ".", cwd=context, check=False)
    assert failed.returncode == 1
    assert "> [2/2] RUN echo said; exit 7:" in failed.stderr
    assert "did not complete successfully: exit code: 7" in failed.stderr


def test_the_cli_lends_secrets(cli: DockerCLI, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("very secret\n")
    dockerfile = "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s\n"
    flags = ("--progress=plain", "--no-cache")
    shown = cli("build", *flags, "--secret", f"id=s,src={tmp_path}/s", "-", input=dockerfile).stderr
    assert "very secret" in shown
    needs = dockerfile.replace("id=s", "id=s,required")
    failed = cli("build", *flags, "-", input=needs, check=False)
    assert "secret s: not found" in failed.stderr


def test_the_cli_lends_agents(cli: DockerCLI, tmp_path: Path) -> None:
    if shutil.which("ssh-agent") is None:
        pytest.skip("there is no ssh-agent")
    agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    socket, pid = re.search(r"SSH_AUTH_SOCK=([^;]+)", agent), re.search(r"SSH_AGENT_PID=(\d+)", agent)
    assert socket is not None and pid is not None
    try:
        dockerfile = "FROM busybox\nRUN --mount=type=ssh,required ls -l $SSH_AUTH_SOCK\n"
        flags, environment = (
            ("--progress=plain", "--no-cache", "--ssh", "default"),
            {"SSH_AUTH_SOCK": socket[1]},
        )
        shown = cli("build", *flags, "-", input=dockerfile, env=environment).stderr
        assert "/run/buildkit/ssh_agent.0" in shown
    finally:
        subprocess.run(["kill", pid[1]], check=True)


def test_the_cli_takes_files_out(cli: DockerCLI, tmp_path: Path) -> None:
    dockerfile = """FROM busybox AS made
RUN mkdir -p /out/d && cd /out/d && echo content > f && chmod 4751 f && ln -s f l && ln f h && mkfifo p \
 && seq 100000 > big
FROM scratch
COPY --from=made /out /
"""
    cli("build", "-o", str(tmp_path / "tree"), "-", input=dockerfile)
    there = tmp_path / "tree/d"
    assert sorted(path.name for path in there.iterdir()) == ["big", "f", "h", "l", "p"]
    assert (there / "l").readlink() == Path("f")
    assert (there / "f").read_text() == "content\n"
    assert (there / "f").stat().st_mode & 0o7777 == 0o4751
    assert (there / "f").stat().st_ino == (there / "h").stat().st_ino
    assert (there / "big").read_text().splitlines()[-1] == "100000"
    cli("build", "-o", f"type=tar,dest={tmp_path}/t.tar", "-", input=dockerfile)
    with tarfile.open(tmp_path / "t.tar") as tar:
        assert {"d/f", "d/l", "d/big"} <= set(tar.getnames())


def test_the_cli_sends_an_archive(cli: DockerCLI, tmp_path: Path) -> None:
    body = tmp_path / "context.tar"
    body.write_bytes(archive("FROM busybox\nCOPY f /f\nRUN cat /f\n", {"f": b"from the archive\n"}))
    with body.open("rb") as file:
        done = subprocess.run(
            [cli.program, "build", "--progress=plain", "-"],
            stdin=file,
            env=cli.env,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert "from the archive" in done.stderr
