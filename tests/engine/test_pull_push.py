"""docker pull, push, login and search on real registries, beside dockerd as the other end."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Daemon, DockerCLI, Dockerd, Layer, Longshored, docker_archive
from harness.registry import PASSWORD, USER, FakeRegistry, Registry

NOISE = random.Random(2).randbytes(3_000_000)


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    yield from _serving(Registry.missing())


@pytest.fixture(scope="module")
def guarded() -> Iterator[Registry]:
    yield from _serving(Registry.missing(), auth=True)


def _serving(missing: bool, **options: Any) -> Iterator[Registry]:
    if missing:
        pytest.skip("docker-registry is not installed")
    served = Registry(**options)
    yield served
    served.close()


@pytest.fixture
def daemon_with_image(daemon: Longshored, tmp_path: Path) -> Iterator[Longshored]:
    """Layers: a small one, one that does not fit one request, and two empty ones that are equal."""
    layers = [Layer({"a": b"small"}), Layer({"noise": NOISE}), Layer({}), Layer({})]
    docker_archive(tmp_path / "image.tar", layers, ["app:1"])
    daemon.load(tmp_path / "image.tar")
    yield daemon
    for image in daemon.docker.out("images", "-q", "--filter", "reference=*app*").splitlines():
        daemon.docker("rmi", "-f", image, check=False)
    for name in daemon.docker.out("images", "--format", "{{.Repository}}").splitlines():
        if name.startswith("127.0.0.1:"):
            daemon.docker("rmi", "-f", *_names(daemon, name), check=False)


def _names(daemon: Daemon, repository: str) -> list[str]:
    listed = daemon.docker.out("images", "--format", "{{.Repository}}:{{.Tag}}", repository)
    return listed.split() or [repository]


def digest_in(text: str) -> str:
    found = re.search(r"sha256:[0-9a-f]{64}", text)
    assert found, text
    return found[0]


def test_an_image_goes_out_and_comes_back_the_same(daemon_with_image: Longshored, registry: Registry) -> None:
    docker = daemon_with_image.docker
    name = f"{registry.address}/team/app"
    docker("tag", "app:1", f"{name}:1")
    pushed = docker.out("push", f"{name}:1")
    digest, manifest = registry.manifest("team/app", "1")
    assert pushed.splitlines()[0] == f"The push refers to repository [{name}]"
    size = re.search(r"size: (\d+)", pushed)
    assert digest_in(pushed.splitlines()[-1]) == digest
    assert size
    assert len(manifest["layers"]) == 4
    id = docker.out("inspect", "-f", "{{.Id}}", "app:1")
    docker("rmi", "-f", id)
    pulled = docker.out("pull", f"{name}:1")
    assert f"Digest: {digest}" in pulled
    assert f"Status: Downloaded newer image for {name}:1" in pulled
    assert (
        docker.out("inspect", "-f", "{{.Id}} {{index .RepoDigests 0}}", f"{name}:1")
        == f"{id} {name}@{digest}"
    )
    assert f"Status: Image is up to date for {name}:1" in docker.out("pull", f"{name}:1")


def test_dockerd_and_we_take_each_others_images(
    daemon_with_image: Longshored, registry: Registry, tmp_path: Path
) -> None:
    if reason := Dockerd.missing():
        pytest.skip(reason)
    ours, theirs = f"{registry.address}/ours/app:1", f"{registry.address}/theirs/app:1"
    other = Dockerd("--bridge=none", "--iptables=false", isolated=False)
    try:
        other.start()
        docker = daemon_with_image.docker
        docker("tag", "app:1", ours)
        docker("push", ours)
        other.docker("pull", ours)
        other.docker("tag", ours, theirs)
        other.docker("push", theirs)
        assert registry.manifest("ours/app", "1") == registry.manifest("theirs/app", "1")
        id = docker.out("inspect", "-f", "{{.Id}}", ours)
        assert other.docker.out("inspect", "-f", "{{.Id}}", ours) == id
        docker("rmi", "-f", id)
        docker("pull", theirs)
        assert docker.out("inspect", "-f", "{{.Id}}", theirs) == id
        # What is said while a repository comes, a tag of it that is here, and a digest.
        repository, digest = ours.removesuffix(":1"), registry.manifest("ours/app", "1")[0]
        for daemon in (daemon_with_image, other):
            daemon.docker("rmi", "-f", id)
        for name in (repository, ours, f"{repository}@{digest}"):
            assert said_of_pull(daemon_with_image, name) == said_of_pull(other, name)
    finally:
        other.destroy()


def said_of_pull(daemon: Daemon, name: str) -> set[str]:
    """The different messages without numbers, but for those whose place a later one may take."""
    answer = Client(daemon.socket, "1.41").post("/images/create", fromImage=name).expect(200)
    messages = [json.loads(line) for line in answer.body.splitlines()]
    passing = ("Waiting", "Verifying Checksum", "Download complete")
    said = [each for each in messages if not each.get("progressDetail") and each["status"] not in passing]
    return {json.dumps(each, sort_keys=True) for each in said}


def test_what_a_registry_has_is_not_sent_again(daemon_with_image: Longshored, registry: Registry) -> None:
    docker = daemon_with_image.docker
    first, second = f"{registry.address}/first/app", f"{registry.address}/second/app"
    for name in (f"{first}:1", f"{first}:2", f"{second}:1"):
        docker("tag", "app:1", name)
    docker("push", f"{first}:1")
    assert docker.out("push", f"{first}:2").count("Layer already exists") == 3
    mounted = docker.out("push", f"{second}:1")
    assert mounted.count("Mounted from first/app") == 3
    assert registry.manifest("second/app", "1") == registry.manifest("first/app", "2")
    everything = docker.out("push", "-a", first)
    assert [line.split(":")[0] for line in everything.splitlines() if ": digest: " in line] == ["1", "2"]


def test_a_password_is_needed_and_used(daemon_with_image: Longshored, guarded: Registry) -> None:
    docker = daemon_with_image.docker
    name = f"{guarded.address}/private/app:1"
    docker("tag", "app:1", name)
    assert "no basic auth credentials" in docker("push", name, check=False).stderr
    wrong = docker("login", "-u", USER, "--password-stdin", guarded.address, input="no", check=False)
    assert (
        f"login attempt to http://{guarded.address}/v2/ failed with status: 401 Unauthorized" in wrong.stderr
    )
    login = docker("login", "-u", USER, "--password-stdin", guarded.address, input=PASSWORD)
    assert "Login Succeeded" in login.stdout
    try:
        docker("push", name)
        docker("rmi", name)
        docker("pull", name)
    finally:
        docker("logout", guarded.address)
    refused = docker("pull", name, check=False).stderr
    url = f"http://{guarded.address}/v2/private/app/manifests/1"
    assert refused.strip() == f'Error response from daemon: Head "{url}": no basic auth credentials'


def test_only_the_platform_that_is_here_can_be_pushed(
    daemon_with_image: Longshored, registry: Registry
) -> None:
    docker = daemon_with_image.docker
    name = f"{registry.address}/platform/app:1"
    docker("tag", "app:1", name)
    docker("push", "--platform", "linux/amd64", name)
    refused = docker("push", "--platform", "linux/s390x", name, check=False).stderr
    assert "its platform (linux/amd64) does not match the specified platform (linux/s390x)" in refused


def test_events_tell_of_pull_and_push(daemon_with_image: Longshored, registry: Registry) -> None:
    name = f"{registry.address}/told/app"
    docker = daemon_with_image.docker
    docker("tag", "app:1", f"{name}:1")
    began = time.time()
    docker("push", f"{name}:1")
    docker("pull", f"{name}:1")
    text = docker.out(
        "events", "--since", f"{began:.6f}", "--until", f"{time.time():.6f}", "--format", "{{json .}}"
    )
    told = [
        (event["Action"], event["Actor"]["ID"], event["Actor"]["Attributes"]["name"])
        for event in map(json.loads, text.splitlines())
        if event["Type"] == "image" and event["Action"] in ("push", "pull")
    ]
    assert told == [("push", f"{name}:1", name), ("pull", f"{name}:1", name)]


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        (
            "{registry}/team/none:1",
            404,
            "manifest for {registry}/team/none:1 not found: manifest unknown: manifest unknown",
        ),
        (
            "127.0.0.1:1/x:1",
            500,
            'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
        ),
        ("scratch:latest", 403, "'scratch' is a reserved name"),
    ],
)
def test_refusals(api: Client, registry: Registry, name: str, status: int, message: str) -> None:
    image, _, tag = name.format(registry=registry.address).rpartition(":")
    answer = api.post("/images/create", fromImage=image, tag=tag)
    assert (answer.status, answer.message) == (status, message.format(registry=registry.address))


def test_distribution_inspect(daemon_with_image: Longshored, registry: Registry) -> None:
    docker = daemon_with_image.docker
    name = f"{registry.address}/seen/app:1"
    docker("tag", "app:1", name)
    docker("push", name)
    digest, _ = registry.manifest("seen/app", "1")
    api = Client(daemon_with_image.socket, "1.50")
    answer = api.get(f"/distribution/{name}/json").expect(200).json
    assert answer["Descriptor"]["digest"] == digest
    assert answer["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    assert api.get(f"/distribution/{registry.address}/seen/app:2/json").status == 404


def test_search_asks_the_index_that_the_term_names(api: Client) -> None:
    fake = FakeRegistry()
    found = {"results": [{"name": "team/app", "description": "", "star_count": 3, "is_official": False}]}

    def index(handler: Any) -> bool:
        if handler.path.startswith("/v1/search"):
            handler.answer(200, json.dumps(found).encode())
            return True
        return False

    fake.behave = index
    try:
        answer = api.get("/images/search", term=f"{fake.address}/app").expect(200).json
        assert [(each["name"], each["star_count"]) for each in answer] == [("team/app", 3)]
        assert fake.requests[-1][1] == "/v1/search?q=app&n=25"
        stars = {"stars": ["5"]}
        assert api.get("/images/search", term=f"{fake.address}/app", filters=stars).json == []
        assert api.get("/images/search", term="x", limit=101).status == 400
    finally:
        fake.close()


def test_docker_hubs_images_come_from_the_first_mirror_that_answers(
    daemon_with_image: Longshored, registry: Registry
) -> None:
    name = f"{registry.address}/library/app:mirrored"
    daemon_with_image.docker.out("tag", "app:1", name)
    daemon_with_image.docker.out("push", "-q", name)
    mirrors = ("--registry-mirror", "http://127.0.0.1:1", "--registry-mirror", f"http://{registry.address}")
    mirrored = Longshored(*mirrors)
    try:
        mirrored.start()
        said = mirrored.docker.out("pull", "app:mirrored")
        assert "Status: Downloaded newer image for app:mirrored" in said
        assert mirrored.docker.out("images", "--format", "{{.Repository}}:{{.Tag}}") == "app:mirrored"
        info = mirrored.client.get("/info").json["RegistryConfig"]["Mirrors"]
        assert info == ["http://127.0.0.1:1/", f"http://{registry.address}/"]
    finally:
        mirrored.destroy()


def test_a_kill_in_the_middle_leaves_nothing_half_made(fresh_daemon: Longshored) -> None:
    fake = FakeRegistry()
    fake.image("app:1", [Layer({"a": b"x"}), Layer({"noise": NOISE})])
    content = max(fake.blobs.values(), key=len)

    def stall(handler: Any) -> bool:
        if fake.blobs.get(handler.path.rpartition("/")[2]) is not content:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:2_000_000])
        time.sleep(3)
        return True

    def layers() -> set[str]:
        return {path.name for path in (fresh_daemon.data_root / "overlay2").iterdir()}

    fake.behave = stall
    before = layers()
    try:
        pull = fresh_daemon.docker.popen("pull", f"{fake.address}/app:1", stdout=subprocess.PIPE)
        deadline = time.monotonic() + 20
        while len(layers()) == len(before):  # The small one is here, the large one under way.
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(fresh_daemon.pid, signal.SIGKILL)
        fresh_daemon.kill()
        pull.communicate(timeout=20)
        assert list((fresh_daemon.data_root / "tmp").iterdir()) == []
        fake.behave = lambda _: False
        fresh_daemon.start()
        images = fresh_daemon.docker.out("images", "--format", "{{.Repository}}").split()
        assert images == ["busybox"]
        assert layers() == before
        fresh_daemon.docker("pull", f"{fake.address}/app:1")
    finally:
        fake.close()


def test_a_pull_ends_when_the_client_goes(daemon: Longshored) -> None:
    fake = FakeRegistry()
    fake.image("gone:1", [Layer({"noise": NOISE})])
    content = max(fake.blobs.values(), key=len)
    ended = []

    def trickle(handler: Any) -> bool:
        if fake.blobs.get(handler.path.rpartition("/")[2]) is not content:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        try:
            for start in range(0, len(content), 20_000):
                handler.wfile.write(content[start : start + 20_000])
                time.sleep(0.1)
        except OSError:
            ended.append(time.monotonic())
        handler.close_connection = True
        return True

    fake.behave = trickle
    try:
        api = Client(daemon.socket, "1.50")
        with api.stream("POST", "/images/create", fromImage=f"{fake.address}/gone", tag="1") as answer:
            while b"Downloading" not in answer.readline():
                pass
        left = time.monotonic()
        while not ended and time.monotonic() < left + 8:
            time.sleep(0.05)
        assert ended, "the daemon went on downloading"
        assert daemon.docker.out("images", "-q", f"{fake.address}/gone") == ""
    finally:
        fake.close()


def test_login_over_the_api(api: Client, guarded: Registry) -> None:
    credentials = {"username": USER, "password": PASSWORD, "serveraddress": guarded.address}
    assert api.post("/auth", credentials).json == {"Status": "Login Succeeded", "IdentityToken": ""}
    assert api.post("/auth", credentials | {"password": "no"}).status == 500
    header = base64.urlsafe_b64encode(json.dumps(credentials).encode()).decode()
    missing = api.request(
        "POST",
        "/images/create",
        query={"fromImage": f"{guarded.address}/none", "tag": "1"},
        headers={"X-Registry-Auth": header},
    )
    assert missing.status == 404


def test_a_container_runs_straight_from_a_registry(docker: DockerCLI, registry: Registry) -> None:
    name = f"{registry.address}/tools/busybox:latest"
    docker("tag", "busybox", name)
    docker("push", name)
    docker("rmi", name)
    try:
        assert docker("run", "--rm", name, "echo", "here").stdout == "here\n"
    finally:
        docker("rmi", name, check=False)
