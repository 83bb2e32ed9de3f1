"""POST /grpc: BuildKit's services, called by a client of our own and by buildx."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine.test_build import builder
from engine.test_build_v2 import offering
from engine.test_compose_plugin import find_plugin
from google.protobuf.message import Message
from grpclib.client import UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from harness import Client, DockerCLI, Longshored, SessionPeer
from harness.session import Caller

from longshore.buildkit.proto import control_pb2 as pb

__all__ = ["builder"]

CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"


@pytest.fixture
def caller(builder: Longshored) -> Iterator[Caller]:
    """A client of the session's daemon."""
    with Caller(builder.socket) as opened:
        yield opened


def call(caller: Caller, method: str, request: Message, reply: type, build: str = "") -> Any:
    """One call to one of the services; `build` says to which solve it belongs."""
    metadata = {"buildkit-controlapi-buildid": build} if build else None
    return caller.run(caller.unary(method, request, reply, metadata))


def refused(caller: Caller, method: str, request: Message, build: str = "") -> GRPCError:
    with pytest.raises(GRPCError) as caught:
        call(caller, method, request, pb.Empty, build)
    return caught.value


def request(ref: str, peer: SessionPeer, **more: Any) -> pb.SolveRequest:
    """A solve of the peer's Dockerfile, which becomes an image."""
    asked: dict[str, Any] = {"Frontend": "dockerfile.v0", "Exporters": [pb.Exporter(Type="moby")]}
    return pb.SolveRequest(Ref=ref, Session=peer.id, **(asked | more))


def test_what_there_is(builder: Longshored, caller: Caller) -> None:
    assert call(caller, "/grpc.health.v1.Health/Check", pb.Empty(), pb.HealthCheckResponse).status == 1
    assert call(caller, CONTROL + "Info", pb.Empty(), pb.InfoResponse).buildkitVersion.package == "longshore"
    workers = call(caller, CONTROL + "ListWorkers", pb.ListWorkersRequest(), pb.ListWorkersResponse).record
    assert [(platform.OS, bool(platform.Architecture)) for platform in workers[0].platforms] == [
        ("linux", True)
    ]
    assert refused(caller, CONTROL + "Nothing", pb.Empty()).status is Status.UNIMPLEMENTED
    answer = Client(builder.socket, "").post("/grpc")
    assert (answer.status, answer.message) == (400, "no upgrade proto in request")


def test_a_solve_is_told_of_from_its_beginning(builder: Longshored, caller: Caller) -> None:
    with offering(builder, "FROM busybox\nRUN echo said\n") as peer:
        exporter = pb.Exporter(Type="moby", Attrs={"name": "docker.io/library/grpc:1,grpc:2"})
        solving = caller.start(
            caller.unary(CONTROL + "Solve", request("r1", peer, Exporters=[exporter]), pb.SolveResponse)
        )
        follow = caller.streamed(CONTROL + "Status", pb.StatusRequest(Ref="r1"), pb.StatusResponse)
        told = caller.run(follow)
        response = dict(solving.result(60).ExporterResponse)
        late = caller.run(caller.streamed(CONTROL + "Status", pb.StatusRequest(Ref="r1"), pb.StatusResponse))
    names = {vertex.name for status in told for vertex in status.vertexes}
    assert {
        "[1/2] FROM docker.io/library/busybox:latest",
        "[2/2] RUN echo said",
        "exporting to image",
    } <= names
    assert names == {vertex.name for status in late for vertex in status.vertexes}
    assert b"".join(log.msg for status in told for log in status.logs) == b"said\n"
    id = builder.docker.out("inspect", "-f", "{{.Id}}", "grpc:2")
    assert response["containerimage.digest"] == response["containerimage.config.digest"] == id
    assert response["image.name"] == "docker.io/library/grpc:1,docker.io/library/grpc:2"


def test_a_client_runs_the_frontend_itself(builder: Longshored, caller: Caller) -> None:
    with offering(builder, "FROM busybox\nENV A=b\nRUN echo content > /made\n") as peer:
        solve = request("r2", peer, Frontend="")
        solving = caller.start(caller.unary(CONTROL + "Solve", solve, pb.SolveResponse))
        caps = call(caller, BRIDGE + "Ping", pb.Empty(), pb.PongResponse, "r2").FrontendAPICaps
        assert {"return", "proto.refarray"} <= {cap.ID for cap in caps}
        asked = pb.BridgeSolveRequest(
            Frontend="dockerfile.v0",
            FrontendOpt={"label:who": "me", "build-arg:X": "y"},
            allowResultReturn=True,
            allowResultArrayRef=True,
        )
        result = call(caller, BRIDGE + "Solve", asked, pb.BridgeSolveResponse, "r2").result
        config = json.loads(result.metadata["containerimage.config"])
        assert "A=b" in config["config"]["Env"] and config["config"]["Labels"] == {"who": "me"}
        read = pb.ReadFileRequest(Ref=result.ref.id, FilePath="/made")
        assert call(caller, BRIDGE + "ReadFile", read, pb.ReadFileResponse, "r2").Data == b"content\n"
        part = pb.ReadFileRequest(Ref=result.ref.id, FilePath="made", Range=pb.FileRange(Offset=3, Length=2))
        assert call(caller, BRIDGE + "ReadFile", part, pb.ReadFileResponse, "r2").Data == b"te"
        stat = pb.StatFileRequest(Ref=result.ref.id, Path="/etc")
        assert call(caller, BRIDGE + "StatFile", stat, pb.StatFileResponse, "r2").stat.mode & 1 << 31
        missing = pb.ReadFileRequest(Ref=result.ref.id, FilePath="../../../etc/hostname-of-the-machine")
        assert refused(caller, BRIDGE + "ReadFile", missing, "r2").status is Status.NOT_FOUND
        nobody = pb.ReadFileRequest(Ref="nobody's", FilePath="/made")
        assert "no such ref" in str(refused(caller, BRIDGE + "ReadFile", nobody, "r2"))
        call(caller, BRIDGE + "Return", pb.ReturnRequest(result=result), pb.Empty, "r2")
        assert solving.result(30).ExporterResponse["containerimage.digest"].startswith("sha256:")


def test_failures_show_the_dockerfile(builder: Longshored, caller: Caller) -> None:
    with offering(builder, "FROM busybox\n\nRUN exit 4\n") as peer:
        failed = refused(caller, CONTROL + "Solve", request("r3", peer))
    assert failed.status is Status.UNKNOWN
    assert failed.message == 'process "/bin/sh -c exit 4" did not complete successfully: exit code: 4'
    with offering(builder, "FROM busybox\nNONSENSE\n") as peer:
        failed = refused(caller, CONTROL + "Solve", request("r4", peer))
    assert failed.message == "dockerfile parse error on line 2: unknown instruction: NONSENSE"


def test_what_a_client_returns_ends_the_solve(builder: Longshored, caller: Caller) -> None:
    with offering(builder, "FROM busybox\n") as peer:
        solve = request("r5", peer, Frontend="")
        solving = caller.start(caller.unary(CONTROL + "Solve", solve, pb.SolveResponse))
        error = pb.RpcStatus(code=9, message="I changed my mind")
        call(caller, BRIDGE + "Return", pb.ReturnRequest(error=error), pb.Empty, "r5")
        with pytest.raises(GRPCError, match="I changed my mind") as caught:
            solving.result(30)
        assert caught.value.status is Status.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"Frontend": "gateway.v0"}, "frontend gateway.v0 is not supported"),
        ({"Frontend": "", "definition": pb.Definition(operations=[b"x"])}, "only Dockerfiles are"),
        ({"Exporters": [pb.Exporter(Type="oci")]}, "exporter 'oci' could not be found"),
        (
            {"Cache": pb.CacheOptions(Exports=[pb.CacheOptionsEntry(Type="local")])},
            "cache export is not supported",
        ),
        ({"Entitlements": ["security.insecure"]}, "security.insecure is not allowed"),
        ({"FrontendAttrs": {"force-network-mode": "host"}}, "network.host is not allowed"),
        ({"FrontendAttrs": {"platform": "linux/amd64,linux/arm64"}}, "multiple platforms are not supported"),
        ({"FrontendAttrs": {"requestid": "frontend.lint"}}, "unsupported request frontend.lint"),
        ({"FrontendAttrs": {"context:a": "oci-layout://x"}}, "unsupported build context a"),
        ({"FrontendAttrs": {"attest:sbom": ""}}, "attestations are not supported"),
        ({"FrontendAttrs": {"ulimit": "nofile"}}, "invalid ulimit argument"),
        ({"FrontendAttrs": {"shm-size": "much"}}, "invalid number"),
        ({"FrontendAttrs": {"add-hosts": "nobody"}}, "invalid host nobody"),
        ({"FrontendAttrs": {"cache-imports": "{"}}, "failed to unmarshal cache-imports"),
        ({"FrontendAttrs": {"target": "nowhere"}}, "failed to reach build target nowhere"),
        ({"Exporters": [pb.Exporter(Type="moby", Attrs={"name": "UPPER"})]}, "lowercase"),
    ],
)
def test_what_cannot_be_done_is_said(
    builder: Longshored, caller: Caller, fields: dict[str, Any], why: str
) -> None:
    with offering(builder, "FROM busybox\n") as peer:
        assert why in str(refused(caller, CONTROL + "Solve", request("r6", peer, **fields)).message)


def test_the_dockerfile_frontend_by_its_images_name(builder: Longshored, caller: Caller) -> None:
    attributes = {
        "source": "docker/dockerfile:1.7",
        "cmdline": "docker/dockerfile:1.7",
        "build-arg:BUILDKIT_SYNTAX": "x",
    }
    with offering(builder, "FROM busybox\nRUN true\n") as peer:
        asked = request("r14", peer, Frontend="gateway.v0", FrontendAttrs=attributes)
        assert call(caller, CONTROL + "Solve", asked, pb.SolveResponse).ExporterResponse[
            "containerimage.digest"
        ]


def test_a_solve_that_has_ended_takes_nothing_more(builder: Longshored, caller: Caller) -> None:
    with offering(builder, "FROM busybox\n") as peer:
        call(caller, CONTROL + "Solve", request("r13", peer), pb.SolveResponse)
        again = pb.BridgeSolveRequest(Frontend="dockerfile.v0")
        assert "has ended" in str(refused(caller, BRIDGE + "Solve", again, "r13"))
        assert "needs a reference" in str(refused(caller, CONTROL + "Solve", request("", peer)))


def test_a_solve_that_ends_takes_its_frontend_along(builder: Longshored, caller: Caller) -> None:
    client = Client(builder.socket, "1.50")
    with offering(builder, "FROM busybox\nRUN sleep 300\n") as peer:
        asked = request("r15", peer, Frontend="")
        solving = caller.start(caller.unary(CONTROL + "Solve", asked, pb.SolveResponse))
        frontend = caller.unary(
            BRIDGE + "Solve",
            pb.BridgeSolveRequest(Frontend="dockerfile.v0"),
            pb.BridgeSolveResponse,
            {"buildkit-controlapi-buildid": "r15"},
        )
        running = caller.start(frontend)
        while not client.get("/containers/json").json:
            time.sleep(0.05)
        solving.cancel()
        with pytest.raises(GRPCError) as caught:
            running.result(60)
    assert caught.value.status is Status.CANCELLED
    assert client.get("/containers/json").json == []


def test_no_build_is_remembered(caller: Caller) -> None:
    def listen(**how: bool) -> Any:
        return caller.streamed(CONTROL + "ListenBuildHistory", pb.BuildHistoryRequest(**how), pb.Empty)

    waiting = caller.start(listen())
    assert caller.run(listen(EarlyExit=True, ActiveOnly=True)) == []
    assert not waiting.done()
    waiting.cancel()
    gone = refused(caller, CONTROL + "UpdateBuildHistory", pb.Empty())
    assert (gone.status, "not recorded" in str(gone)) == (Status.NOT_FOUND, True)


def test_settings_of_steps(builder: Longshored, caller: Caller) -> None:
    step = "RUN cat /etc/hosts; ulimit -n; df -k /dev/shm | tail -1; ip link | grep -c eth"
    attributes = {"add-hosts": "far=1.2.3.4,other=::5", "ulimit": "nofile=100:200", "shm-size": str(48 << 20)}
    attributes |= {"force-network-mode": "none", "no-cache": ""}
    with offering(builder, f"FROM busybox\n{step} || true\n") as peer:
        call(caller, CONTROL + "Solve", request("r7", peer, FrontendAttrs=attributes), pb.SolveResponse)
        told = caller.run(caller.streamed(CONTROL + "Status", pb.StatusRequest(Ref="r7"), pb.StatusResponse))
    lines = b"".join(log.msg for status in told for log in status.logs).decode().splitlines()
    assert "1.2.3.4\tfar" in lines and "::5\tother" in lines
    assert "100" in lines and lines[-1] == "0"
    assert any(f" {48 << 10} " in line for line in lines)


def test_further_contexts(builder: Longshored, caller: Caller) -> None:
    dockerfile = """FROM replaced AS one
COPY --from=more f /f
RUN --mount=from=more,target=/m,rw cat /m/f && touch /m/x
RUN --mount=from=more,target=/m test ! -e /m/x
FROM scratch AS over
RUN this is not run
FROM one
COPY --from=over /bin/busybox /b
"""
    peer = offering(builder, dockerfile)
    assert peer.trees is not None
    peer.trees["extra"] = {"f": b"more\n", "left": b"out", ".dockerignore": b"left\n"}
    contexts = {
        "replaced": "docker-image://busybox",
        "over": "docker-image://busybox:latest",
        "more": "local:extra",
    }
    attributes = {f"context:{name}": value for name, value in contexts.items()}
    with peer:
        call(caller, CONTROL + "Solve", request("r8", peer, FrontendAttrs=attributes), pb.SolveResponse)
        assert [what for what, _ in peer.seen] == ["sync dockerfile", "sync extra", "sync extra"]
        assert peer.seen[2][1]["exclude-patterns"] == ["left"]
        peer.trees["extra"]["f"] = b"changed\n"
        call(caller, CONTROL + "Solve", request("r9", peer, FrontendAttrs=attributes), pb.SolveResponse)
        told = caller.run(caller.streamed(CONTROL + "Status", pb.StatusRequest(Ref="r9"), pb.StatusResponse))
        assert b"changed\n" in b"".join(log.msg for status in told for log in status.logs)


def test_a_session_through_the_same_connection(builder: Longshored, caller: Caller) -> None:
    peer = offering(builder, "FROM busybox\nCOPY big /b\nRUN wc -c /b\n", {"big": bytes(5 << 20)})
    peer.start()
    tunnel = caller.start(caller.tunnel(peer))
    try:
        call(caller, CONTROL + "Solve", request("r10", peer), pb.SolveResponse)
        assert [what for what, _ in peer.seen] == ["sync dockerfile", "sync context", "sync context"]
    finally:
        tunnel.cancel()
        peer.__exit__(None, None, None)


def test_caches_are_told_of_and_pruned(builder: Longshored, caller: Caller) -> None:
    with offering(builder, "FROM busybox\nRUN --mount=type=cache,target=/c echo x > /c/f\n") as peer:
        call(caller, CONTROL + "Solve", request("r11", peer), pb.SolveResponse)
    used = call(caller, CONTROL + "DiskUsage", pb.DiskUsageRequest(), pb.DiskUsageResponse).record
    assert [(each.RecordType, each.Size) for each in used] == [("exec.cachemount", 2)]
    none = caller.run(caller.streamed(CONTROL + "Prune", pb.PruneRequest(filter=["id~=zz"]), pb.UsageRecord))
    assert none == []
    gone = caller.run(caller.streamed(CONTROL + "Prune", pb.PruneRequest(all=True), pb.UsageRecord))
    assert [each.ID for each in gone] == [used[0].ID]


def test_a_client_that_leaves_ends_the_solve(builder: Longshored) -> None:
    client = Client(builder.socket, "1.50")
    with offering(builder, "FROM busybox\nRUN sleep 300\n") as peer, Caller(builder.socket) as caller:
        caller.start(caller.unary(CONTROL + "Solve", request("r12", peer), pb.SolveResponse))
        while not client.get("/containers/json").json:
            time.sleep(0.05)
        caller.leave()
        deadline = time.monotonic() + 30
        while client.get("/containers/json", all=1).json:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_requests_that_are_none(caller: Caller) -> None:
    # Of a solve, the first field is a text.
    failed = refused(caller, CONTROL + "Solve", pb.BytesMessage(data=b"\xff\xfe"))
    assert (failed.status, "unmarshalling" in str(failed)) == (Status.INTERNAL, True)


def test_requests_that_claim_to_be_huge(builder: Longshored, caller: Caller) -> None:
    async def claim() -> None:
        assert caller.channel is not None
        method = UnaryUnaryMethod(caller.channel, CONTROL + "Solve", pb.SolveRequest, pb.SolveResponse)
        async with method.open() as stream:
            await stream.send_request()
            await stream._stream.send_data(b"\0\xff\xff\xff\xff")
            await stream.recv_message()

    with pytest.raises((GRPCError, StreamTerminatedError)) as caught:
        caller.run(claim())
    assert "larger than max" in str(caught.value)


# buildx


@pytest.fixture
def buildx(builder: Longshored, tmp_path: Path) -> DockerCLI:
    """The docker CLI with buildx as its plugin."""
    places = os.pathsep.join(
        (os.environ["PATH"], "/usr/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins")
    )
    program = shutil.which("docker-buildx", path=places) or shutil.which("buildx", path=places)
    if program is None:
        pytest.skip("there is no buildx")
    config = tmp_path / "config"
    (config / "cli-plugins").mkdir(parents=True)
    (config / "cli-plugins/docker-buildx").symlink_to(program)
    return DockerCLI(builder.host, config)


def test_buildx_knows_the_engine(buildx: DockerCLI) -> None:
    assert "running" in buildx("buildx", "ls").stdout
    assert "linux/" in buildx("buildx", "inspect").stdout


def test_buildx_builds(buildx: DockerCLI, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "f").write_text("content\n")
    (tmp_path / "secret").write_text("hush\n")
    (context / "Dockerfile").write_text(
        "FROM busybox AS base\nARG X\nRUN --mount=type=secret,id=s echo $X; cat /run/secrets/s\n"
        "FROM base AS wanted\nCOPY f /f\nFROM base\nRUN false\n"
    )
    flags = ("--progress=plain", "--secret", f"id=s,src={tmp_path}/secret", "--build-arg", "X=arg", "--load")
    flags = (*flags, "--target", "wanted", "--label", "who=me", "-t", "bx:1", "--no-cache")
    shown = buildx("build", *flags, ".", cwd=context).stderr
    assert re.search(r"#\d+ \[base 2/2\] RUN --mount=type=secret,id=s echo \$X; cat /run/secrets/s", shown)
    assert "arg" in shown and "hush" in shown
    assert buildx.out("inspect", "-f", '{{index .Config.Labels "who"}}', "bx:1") == "me"
    failed = buildx("build", "--progress=plain", "--build-arg", "X=arg", ".", cwd=context, check=False)
    assert failed.returncode == 1
    assert ">>> RUN false" in failed.stderr
    assert 'process "/bin/sh -c false" did not complete successfully: exit code: 1' in failed.stderr
    again = ("--build-arg", "X=arg", "--target", "wanted")
    buildx("buildx", "build", "-o", str(tmp_path / "out"), *again, ".", cwd=context)
    assert (tmp_path / "out/f").read_text() == "content\n"
    buildx("buildx", "build", "-o", f"type=tar,dest={tmp_path}/out.tar", *again, ".", cwd=context)
    assert (
        "f"
        in subprocess.run(["tar", "tf", tmp_path / "out.tar"], capture_output=True, text=True).stdout.split()
    )
    id = buildx("buildx", "build", "-q", *again, ".", cwd=context).stdout.strip()
    assert id.startswith("sha256:")


def test_buildx_finds_no_history(buildx: DockerCLI) -> None:
    shown = buildx("buildx", "history", "ls").stdout.splitlines()
    assert len(shown) == 1 and shown[0].startswith("BUILD ID")


def test_buildx_tells_of_caches_and_prunes_them(buildx: DockerCLI) -> None:
    buildx("build", "-", input="FROM busybox\nRUN --mount=type=cache,target=/c echo x > /c/f\n")
    assert "2B" in buildx("buildx", "du").stdout
    assert "2B" in buildx("buildx", "prune", "-af").stdout


def test_compose_builds_with_secrets(builder: Longshored, tmp_path: Path) -> None:
    plugin = find_plugin()
    if plugin is None:
        pytest.skip("there is no docker-compose of release 2 or later")
    (tmp_path / "config/cli-plugins").mkdir(parents=True)
    (tmp_path / "config/cli-plugins/docker-compose").symlink_to(plugin)
    (tmp_path / "key").write_text("sesame\n")
    (tmp_path / "compose.yaml").write_text(
        """
services:
  app:
    image: composed:1
    build:
      context: .
      secrets: [key]
      dockerfile_inline: |
        FROM busybox
        RUN --mount=type=secret,id=key,required md5sum /run/secrets/key > /sum
    command: cat /sum
secrets:
  key: {file: ./key}
"""
    )
    docker = DockerCLI(builder.host, tmp_path / "config")
    own = {"COMPOSE_BAKE": "false", "COMPOSE_PROJECT_NAME": "composed", "COMPOSE_PROGRESS": "plain"}
    shown = docker("compose", "up", "--build", env=own, cwd=tmp_path)
    assert hashlib.md5(b"sesame\n").hexdigest() in shown.stdout
    docker("compose", "down", env=own, cwd=tmp_path)
