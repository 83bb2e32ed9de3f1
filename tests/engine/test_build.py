"""Builds by the real daemon: what the classic builder of dockerd does not know, and what goes wrong."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard
from differential.builds import archive, build, error
from harness import Client, DockerCLI, Longshored, Response

Files = dict[str, "bytes | str | None"]


@pytest.fixture
def builder(daemon: Longshored) -> Iterator[Longshored]:
    """The session's daemon; images and caches that a test made are removed after it."""
    before = _images(daemon)
    yield daemon
    daemon.reset()
    client = Client(daemon.socket, "1.50")
    _wait_for_nothing_left(daemon)
    while left := _images(daemon) - before:
        for id in left:
            client.delete(f"/images/{id}", force=1)
        assert _images(daemon) - before != left
    client.post("/build/prune", all=1)


def text(answer: Response) -> str:
    """What a build shows."""
    assert answer.status == 200, answer.body
    lines = [json.loads(line) for line in answer.body.split(b"\r\n") if line]
    return "".join(line.get("stream", "") for line in lines)


def made(daemon: Longshored, steps: str, files: Files | None = None, **query: Any) -> str:
    """Build, and give what was shown."""
    answer = build(daemon, archive(steps, files), **{"t": "made:1", **query})
    assert not error(answer), error(answer)
    return text(answer)


def refused(daemon: Longshored, steps: str, files: Files | None = None, **query: Any) -> str:
    """Build, and give what it failed with."""
    found = error(build(daemon, archive(steps, files), **query))
    assert found
    return found


CLASSIC = {"DOCKER_BUILDKIT": "0"}
"""For the CLI: a plain `docker build` is BuildKit's, where there is a client for that."""


def test_the_cli_builds_without_being_told_how(builder: Longshored, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo hello\n")
    done = builder.docker("build", "-t", "cli", ".", cwd=tmp_path)
    assert "RUN echo hello" in done.stdout + done.stderr
    assert builder.docker.out("inspect", "-f", "{{.RepoTags}}", "cli") == "[cli:latest]"


def test_the_cli_builds_with_the_classic_builder(builder: Longshored, tmp_path: Path) -> None:
    docker: DockerCLI = builder.docker
    (tmp_path / "f").write_text("content")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY f /f\nRUN cat /f\n")
    assert (
        "Successfully tagged cli:latest"
        in docker("build", "-t", "cli", ".", cwd=tmp_path, env=CLASSIC).stdout
    )
    id = docker("build", "-q", ".", cwd=tmp_path, env=CLASSIC).stdout.strip()
    assert id == docker.out("inspect", "-f", "{{.Id}}", "cli")
    from_stdin = docker(
        "build", "-f", "-", ".", cwd=tmp_path, env=CLASSIC, input="FROM busybox\nCOPY f /g\n"
    ).stdout
    assert "Step 2/2 : COPY f /g" in from_stdin
    assert "Step 2/2 : ENV A=b" in docker("build", "-", input="FROM busybox\nENV A=b\n", env=CLASSIC).stdout


def test_outputs_need_buildkit(builder: Longshored) -> None:
    answer = build(builder, archive("FROM busybox\n"), outputs='[{"Type":"local"}]')
    assert (answer.status, "outputs need BuildKit" in answer.json["message"]) == (400, True)


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["gzip", "bzip2", "xz", "zstd"],
)
def test_contexts_may_be_compressed(builder: Longshored, compress: Callable[[bytes], bytes]) -> None:
    answer = build(builder, compress(archive("FROM busybox\nCOPY f /\nRUN cat /f\n", {"f": b"in here\n"})))
    assert "in here\n" in text(answer)


def test_contexts_that_are_larger_than_they_look(builder: Longshored) -> None:
    body = gzip.compress(archive("FROM busybox\nCOPY big /big\nRUN ls -l /big\n", {"big": bytes(80 << 20)}))
    assert len(body) < 1 << 20
    assert f" {80 << 20} " in text(build(builder, body))
    body = archive("FROM busybox\nCOPY big /big\nRUN ls -l /big\n", {"big": bytes(9 << 20)})
    assert f" {9 << 20} " in text(build(builder, body))


def test_here_documents(builder: Longshored) -> None:
    shown = made(
        builder,
        """FROM busybox
ENV X=1
RUN <<E
echo "one $X"
E
RUN <<-'E' cat > /o
\tkept $X
E
RUN <<E
#!/bin/cat
a program
E
COPY <<F1 <<"F2" /d/
expanded $X "quoted"
F1
literal $X
F2
RUN cat /o && grep . /d/* && test ! -e /dev/pipes
""",
    )
    assert "one 1\n" in shown
    assert "#!/bin/cat\na program\n" in shown
    assert 'kept $X\n/d/F1:expanded 1 "quoted"\n/d/F2:literal $X\n' in shown


def test_programs_in_here_documents_count_for_the_cache(builder: Longshored) -> None:
    dockerfile = "FROM busybox\nRUN <<E\n#!/bin/cat\n{}\nE\n"
    assert "first" in made(builder, dockerfile.format("first"))
    assert "Using cache" in made(builder, dockerfile.format("first"))
    assert "second" in made(builder, dockerfile.format("second"))


def test_only_needed_stages_are_built(builder: Longshored) -> None:
    shown = made(
        builder,
        "FROM busybox AS no\nRUN false\n"
        "FROM busybox AS a\nRUN echo from-a\nFROM busybox AS b\nRUN echo from-b\n"
        "FROM busybox\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n",
    )
    assert shown.index("from-a") < shown.index("Step 3/7") < shown.index("from-b")


def test_independent_stages_meet(builder: Longshored) -> None:
    """Each of two stages waits for the other: built one after the other, they would never end."""
    wait = "RUN --mount=type=cache,target=/c touch /c/{0}; while [ ! -e /c/{1} ]; do usleep 9999; done\n"
    made(
        builder,
        f"FROM busybox AS a\n{wait.format('a', 'b')}FROM busybox AS b\n{wait.format('b', 'a')}"
        "FROM busybox\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n",
    )


def test_mounts_of_a_step(builder: Longshored) -> None:
    shown = made(
        builder,
        """FROM busybox AS other
RUN mkdir /s && echo of-stage > /s/f
FROM busybox
RUN --mount=type=cache,target=/root/c/x echo 1 >> /root/c/x/n
RUN --mount=type=cache,target=/root/c/x echo 2 >> /root/c/x/n; tr '\\n' ' ' < /root/c/x/n
RUN echo empty: $(ls /root)
RUN --mount=target=/ctx cat /ctx/sub/f && ! touch /ctx/new
RUN --mount=target=/ctx,rw touch /ctx/new
RUN --mount=source=sub,target=sub ls sub
RUN --mount=from=other,target=/o,rw cat /o/s/f && touch /o/new
RUN --mount=type=tmpfs,target=/t,size=1m df /t | grep -c tmpfs
RUN --network=none ls /sys/class/net
RUN ls / | grep -E '^(ctx|o|t|sub)$'; true
""",
        {"sub/f": b"of-context\n"},
    )
    assert "1 2 " in shown
    assert "empty:\n" in shown
    assert "of-context\n" in shown
    assert "of-stage\n" in shown
    assert "\nlo\n" in shown
    for stub in ("ctx", "o", "t", "sub"):
        assert f"\n{stub}\n" not in shown.partition("grep -E")[2]


def test_what_a_mount_takes_counts_for_the_cache(builder: Longshored) -> None:
    dockerfile = "FROM busybox\nRUN --mount=target=/c,source=f cat /c > /out && cat /out\n"
    assert "first" in made(builder, dockerfile, {"f": b"first"})
    assert "Using cache" in made(builder, dockerfile, {"f": b"first", "other": b""})
    assert "second" in made(builder, dockerfile, {"f": b"second"})


def test_caches_are_told_of_and_pruned(builder: Longshored) -> None:
    api = Client(builder.socket, "1.50")
    made(builder, "FROM busybox\nRUN --mount=type=cache,id=mine,target=/c echo 12345 > /c/f\n")
    (cache,) = api.get("/system/df").json["BuildCache"]
    assert (cache["Type"], cache["Size"], cache["UsageCount"], cache["InUse"]) == (
        "exec.cachemount", 6, 1, False,
    )  # fmt: skip
    assert api.post("/build/prune", filters={"id": ["nope"]}).json["CachesDeleted"] is None
    for limits in ({"keep-storage": 6}, {"max-used-space": 6}, {"min-free-space": 1}):
        assert api.post("/build/prune", **limits).json["CachesDeleted"] is None
    report = api.post("/build/prune", all=1).json
    assert report == {"CachesDeleted": [cache["ID"]], "SpaceReclaimed": 6}
    assert api.get("/system/df").json["BuildCache"] == []


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("RUN --security=insecure true", "security.insecure is not allowed"),
        ("RUN --network=host true", "network.host is not allowed"),
        ("RUN --mount=type=secret,id=x,required true", "secret x: not found: secrets and agents need"),
        ("RUN --mount=type=ssh,required true", "no SSH key 'default' forwarded from the client: "),
        ("ADD --checksum=sha256:00 f /f", "checksum can't be specified"),
        ("COPY --chmod=9 f /f", "invalid chmod parameter"),
    ],
)
def test_steps_that_are_refused(builder: Longshored, step: str, why: str) -> None:
    assert why in refused(builder, f"FROM busybox\n{step}\n", {"f": b""})


def test_arguments_are_inherited_by_stages_built_on_a_stage(builder: Longshored) -> None:
    shown = made(
        builder,
        "ARG V=outside\nFROM busybox AS a\nARG V\nARG W=w\n"
        "FROM a AS b\nRUN echo $V-$W\nARG W=x\nRUN echo $W\n"
        "FROM busybox\nCOPY --from=b /etc/passwd /p\nRUN echo [$V$W]\n",
    )
    assert "outside-w\n" in shown
    assert "\nx\n" in shown
    assert "\n[]\n" in shown


def test_the_cache_outlives_the_daemon(fresh_daemon: Longshored) -> None:
    dockerfile, files = "FROM busybox\nENV A=b\nCOPY f /f\nRUN cat /f\n", {"f": b"content\n"}
    first = made(fresh_daemon, dockerfile, files)
    fresh_daemon.restart()
    second = made(fresh_daemon, dockerfile, files)
    assert second.count("Using cache") == 3
    assert first.splitlines()[-2:] == second.splitlines()[-2:]
    assert made(fresh_daemon, dockerfile, {"f": b"changed\n"}).count("Using cache") == 1
    assert "Using cache" not in made(fresh_daemon, dockerfile, files, nocache=1)


def test_cache_from_an_image_that_was_loaded(fresh_daemon: Longshored, tmp_path: Path) -> None:
    docker = fresh_daemon.docker
    dockerfile = "FROM busybox\nENV A=b\nRUN echo once > /f\nCMD x\n"
    made(fresh_daemon, dockerfile, t="source:1")
    id = docker.out("inspect", "-f", "{{.Id}}", "source:1")
    docker("save", "-o", str(tmp_path / "saved.tar"), "source:1")
    docker("rmi", "source:1")
    docker("load", "-i", str(tmp_path / "saved.tar"))
    assert "Using cache" not in made(fresh_daemon, dockerfile, t="other:1")
    again = made(fresh_daemon, dockerfile, t="again:1", cachefrom='["source:1"]')
    assert again.count("Using cache") == 3
    assert docker.out("inspect", "-f", "{{.Id}}", "again:1") == id


@pytest.mark.parametrize("copy", ["COPY", "COPY --link"])
def test_an_image_from_elsewhere_is_no_cache(builder: Longshored, tmp_path: Path, copy: str) -> None:
    """Whoever made it may claim that it is what a step makes of nothing."""
    dockerfile, files = f"FROM scratch\n{copy} f /f\n", {"f": b"good"}
    made(builder, dockerfile, files, t="forged:1")
    docker = builder.docker
    docker("save", "-o", str(tmp_path / "saved.tar"), "forged:1")
    docker("rmi", "forged:1")
    docker("load", "-i", str(tmp_path / "saved.tar"))
    assert "Using cache" not in made(builder, dockerfile, files)


@pytest.fixture
def experimental(root: None, busybox_archive: Path) -> Iterator[Longshored]:
    daemon = Longshored("--experimental")
    try:
        daemon.start()
        daemon.load(busybox_archive)
        yield daemon
    finally:
        daemon.destroy()


def test_squash_leaves_one_layer(experimental: Longshored) -> None:
    shown = made(
        experimental,
        "FROM busybox\nRUN echo 1 > /gone; echo 2 > /kept; mkdir /d; echo 3 > /d/f\n"
        "RUN rm /gone /etc/group && echo 4 >> /kept && rm -r /d && mkdir /d && echo 5 > /d/g\nENV A=b\n",
        squash=1,
    )
    id = experimental.docker.out("inspect", "-f", "{{.Id}}", "made:1")
    assert f"Successfully built {id[7:19]}\n" in shown
    image = Client(experimental.socket, "1.50").get("/images/made:1/json").json
    assert len(image["RootFS"]["Layers"]) == 2
    assert "A=b" in image["Config"]["Env"]
    history = experimental.docker.out("history", "--no-trunc", "--format", "{{.Size}} {{.Comment}}", "made:1")
    assert history.splitlines()[0].startswith("6B merge sha256:")
    found = experimental.docker.out(
        "run",
        "--rm",
        "--network",
        "none",
        "made:1",
        "sh",
        "-c",
        "cat /kept /d/*; ls /gone /d 2>&1; true",
    )
    assert found.splitlines()[:4] == ["2", "4", "5", "ls: /gone: No such file or directory"]
    experimental.docker("save", "-o", str(experimental.root / "saved.tar"), "made:1")
    with tarfile.open(experimental.root / "saved.tar") as saved:
        entries = _names_of_last_layer(saved)
    assert {".wh.group", "kept", "g"} <= {name.rpartition("/")[2] for name in entries}
    assert not any("gone" in name or name.endswith("d/f") for name in entries)


def _names_of_last_layer(saved: tarfile.TarFile) -> list[str]:
    manifest = saved.extractfile("manifest.json")
    assert manifest is not None
    layer = saved.extractfile(json.load(manifest)[0]["Layers"][-1])
    assert layer is not None
    with tarfile.open(fileobj=layer) as tar:
        return tar.getnames()


def test_a_client_that_leaves_ends_the_build(builder: Longshored) -> None:
    api = Client(builder.socket, "1.50")
    before = _images(builder)
    body = archive("FROM busybox\nENV A=b\nRUN echo started; sleep 1000\n")
    with api.stream("POST", "/build", body, headers={"Content-Type": "application/x-tar"}) as answer:
        while b"started" not in answer.readline():
            pass
    _wait_for_nothing_left(builder)
    assert len(_images(builder) - before) == 1  # The step that was done stays for the next build.


def test_a_build_that_is_ended_anywhere_leaves_nothing(builder: Longshored) -> None:
    """After each line of its output: containers, mounts and layers go; only images of whole steps stay."""
    api = Client(builder.socket, "1.50")
    before = _images(builder)
    size = api.get("/system/df", type="image").json["LayersSize"]
    body = archive(
        "FROM busybox AS a\nRUN --mount=type=cache,target=/c echo 1 > /f\nCOPY . /all\n"
        "FROM busybox AS b\nRUN echo b > /b\nFROM a\nCOPY --from=b /b /b\n"
        "RUN --mount=target=/x,rw --mount=from=b,target=/y echo 2 > /x/g\nWORKDIR /w/x\n",
        {"f": b"f"},
    )
    headers = {"Content-Type": "application/x-tar"}
    ended = False
    for count in range(1, 90, 3):
        with api.stream("POST", "/build", body, headers=headers, nocache=1) as answer:
            ended = any(not answer.readline() for _ in range(count))
        if ended:
            break
    assert ended
    _wait_for_nothing_left(builder)
    while left := _images(builder) - before:
        for id in left:
            api.delete(f"/images/{id}", force=1)
    assert api.get("/system/df", type="image").json["LayersSize"] == size


def test_a_daemon_that_dies_leaves_nothing_of_a_build(fresh_daemon: Longshored) -> None:
    api = Client(fresh_daemon.socket, "1.50")
    body = archive("FROM busybox\nRUN --mount=target=/c,rw echo started; sleep 1000\n")
    with api.stream("POST", "/build", body, headers={"Content-Type": "application/x-tar"}) as answer:
        while b"started" not in answer.readline():
            pass
        fresh_daemon.kill()
    fresh_daemon.start()
    _wait_for_nothing_left(fresh_daemon)
    made(fresh_daemon, "FROM busybox\nRUN true\n")


def test_a_daemon_that_dies_as_a_container_of_a_build_is_made(fresh_daemon: Longshored) -> None:
    api = Client(fresh_daemon.socket, "1.50")
    body = archive("FROM busybox\nRUN sleep 1000\n")
    containers = fresh_daemon.data_root / "containers"
    with api.stream("POST", "/build", body, headers={"Content-Type": "application/x-tar"}):
        deadline = time.monotonic() + 60
        while not (records := list(containers.glob("*/config.v2.json"))):
            assert time.monotonic() < deadline
        fresh_daemon.kill()
    noted = [each.name for each in (fresh_daemon.data_root / "builder/builds").glob("*/containers/*")]
    assert noted == [records[0].parent.name]
    fresh_daemon.start()
    _wait_for_nothing_left(fresh_daemon)


def test_what_failed_stays_to_be_looked_at(builder: Longshored) -> None:
    api = Client(builder.socket, "1.50")
    assert "returned a non-zero code: 7" in refused(builder, "FROM busybox\nRUN exit 7\n")
    (kept,) = api.get("/containers/json", all=1).json
    assert kept["State"] == "exited"
    builder.reset()
    refused(builder, "FROM busybox\nRUN exit 7\n", forcerm=1)
    assert api.get("/containers/json", all=1).json == []


def test_builds_beside_each_other(builder: Longshored) -> None:
    def one(number: int) -> str:
        step = f"FROM busybox\nCOPY f /f\nENV N={number}\nRUN cat /f; echo number $N\n"
        return made(builder, step, {"f": b"same\n"}, t=f"made:{number}")

    with ThreadPoolExecutor(4) as threads:
        for number, shown in enumerate(threads.map(one, range(8))):
            assert f"same\nnumber {number}\n" in shown


def test_much_output_reaches_a_slow_client(builder: Longshored) -> None:
    body = archive("FROM busybox\nRUN seq 1 300000\n")
    api = Client(builder.socket, "1.50")
    with api.stream("POST", "/build", body, headers={"Content-Type": "application/x-tar"}) as answer:
        lines = answer.read().split(b"\r\n")
    shown = "".join(json.loads(line).get("stream", "") for line in lines if line)
    assert shown.count("\n") > 300000
    assert "\n299999\n300000\n" in shown


def _images(daemon: Longshored) -> set[str]:
    return {each["Id"] for each in Client(daemon.socket, "1.50").get("/images/json", all=1).json}


def _leftovers(daemon: Longshored) -> list[str]:
    """Containers, and directories and mounts of builds."""
    builds = daemon.data_root / "builder" / "builds"
    containers = Client(daemon.socket, "1.50").get("/containers/json", all=1).json
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(builds) in line]
    found = [each.name for each in builds.iterdir()] if builds.is_dir() else []
    return [*(f"{each['Id'][:12]} {each['Status']}" for each in containers), *found, *mounts]


def _wait_for_nothing_left(daemon: Longshored, patience: float = 60) -> None:
    deadline = time.monotonic() + patience
    while left := _leftovers(daemon):
        assert time.monotonic() < deadline, f"left of builds: {left}"
        time.sleep(0.05)
