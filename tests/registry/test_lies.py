"""Registries that want to be believed, to be followed, or to be waited for."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import itertools
import json
import random
import resource
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from harness.images import Layer
from harness.registry import FakeRegistry, gzipped
from registry.pulling import Puller, blob_requests

from longshore.errors import EngineError, NotFound
from longshore.images.registry.platforms import parse_platform
from longshore.types.registry import AuthConfig

pytestmark = pytest.mark.usefixtures("root")

NOISE = random.Random(4).randbytes(600_000)
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = {"digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}", "size": 2}

Spoil = Callable[[dict[str, Any]], object]


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that tells nobody."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def manifest_of(fake: FakeRegistry, name: str) -> dict[str, Any]:
    """What the registry has under the name."""
    path, _, tag = name.partition(":")
    return dict(json.loads(fake.manifests[f"{path}/manifests/{tag}"][0]))


@pytest.mark.parametrize("difference", [-1, 1, 10_000_000_000], ids=["less", "more", "a lot more"])
def test_a_layer_of_another_size_is_refused_before_it_is_fetched(
    puller: Puller, fake: FakeRegistry, difference: int
) -> None:
    fake.image("app:1", [Layer({"noise": NOISE})])
    manifest = manifest_of(fake, "app:1")
    layer = manifest["layers"][0]
    layer["size"] += difference
    fake.manifest("app:1", manifest, DOCKER)
    with pytest.raises(EngineError, match=r"filesystem layer verification failed for digest .* bytes"):
        puller.pull("app:1")
    assert blob_requests(fake).count(layer["digest"]) == 1
    puller.assert_nothing_came()


def _config(media_type: str) -> Spoil:
    return lambda document: document["config"].update(mediaType=media_type)


@pytest.mark.parametrize(
    ("media_type", "spoil", "message"),
    [
        (
            OCI,
            _config("application/vnd.oci.empty.v1+json"),
            "unsupported media type application/vnd.oci.empty",
        ),
        (OCI, _config("application/vnd.cncf.helm.config.v1+json"), "unsupported media type .*helm"),
        (OCI, _config("application/vnd.oci.images_are_fun"), "unsupported media type .*images_are_fun"),
        (DOCKER, _config("application/vnd.docker.plugin.v1+json"), r'Encountered remote ".*"\(plugin\) when'),
        (OCI, lambda it: it.update(manifests=[]), "both an image and a list of images"),
        (OCI, lambda it: it.update(mediaType=DOCKER), f"mediaType in manifest should be '{OCI[:15]}"),
        (DOCKER, lambda it: it.update(layers=it["layers"] * 126), "layers from manifest don't match"),
        (DOCKER, lambda it: it.update(layers=it["layers"] * 10_000), "malformed layers"),
        (DOCKER, lambda it: it.update(layers={"0": 1}), "malformed layers"),
        (OCI_INDEX, lambda it: (it.clear(), it.update(manifests=[{**EMPTY, "annotations": 5}])), "not found"),
        (DOCKER_LIST, lambda it: (it.clear(), it.update(manifests=[EMPTY] * 10_000)), "malformed manifests"),
    ],
    ids=[
        *("artifact", "chart", "prefix", "plug-in", "both", "two kinds", "too many layers", "10000 layers"),
        *("no list", "annotations", "10000 images"),
    ],
)
def test_what_is_no_image_is_told_apart(
    puller: Puller, fake: FakeRegistry, media_type: str, spoil: Spoil, message: str
) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    manifest = manifest_of(fake, "app:1") | {"mediaType": media_type}
    spoil(manifest)
    fake.manifest("app:1", manifest, media_type)
    with pytest.raises(EngineError, match=message):
        puller.pull("app:1")
    puller.assert_nothing_came()


def test_more_layers_than_the_kernel_can_stack_are_not_even_fetched(
    puller: Puller, fake: FakeRegistry
) -> None:
    fake.image("app:1", [Layer({})] * 126)
    with pytest.raises(EngineError, match="max depth exceeded"):
        puller.pull("app:1")
    assert len(blob_requests(fake)) == 1  # the configuration
    puller.assert_nothing_came()


@pytest.mark.parametrize("form", ["prettyjws", "json"])
def test_schema_1_is_refused_in_dockers_words(puller: Puller, fake: FakeRegistry, form: str) -> None:
    media_type = f"application/vnd.docker.distribution.manifest.v1+{form}"
    fake.manifest("old:1", {"schemaVersion": 1, "name": "old", "fsLayers": [], "history": []}, media_type)
    with pytest.raises(EngineError) as failure:
        puller.pull("old:1")
    assert str(failure.value) == (
        "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 support "
        "is disabled by default and will be removed in an upcoming release. Suggest the author of "
        f"{fake.address}/old:1 to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. "
        "More information at https://docs.docker.com/go/deprecated-image-specs/"
    )


def test_attestations_are_passed_over(puller: Puller, fake: FakeRegistry) -> None:
    image = fake.image("app:image", [Layer({"a": b"x"})], oci=True)
    proof = fake.image("app:proof", [Layer({"statement": b"y"})], oci=True)
    platform = {"os": "linux", "architecture": parse_platform("linux").architecture}
    reference = {"vnd.docker.reference.type": "attestation-manifest"}
    manifests = [
        proof | {"platform": {"os": "unknown", "architecture": "unknown"}, "annotations": reference},
        proof | {"annotations": reference},
        image | {"platform": platform},
    ]
    fake.manifest("app:1", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}, OCI_INDEX)
    puller.pull("app:1")
    assert [each.Id for each in puller.images.list()] == [manifest_of(fake, "app:image")["config"]["digest"]]


def test_foreign_layers_come_from_the_registry(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"a": b"x"})], compress=gzipped)
    manifest = manifest_of(fake, "app:1")
    manifest["layers"][0] |= {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "urls": ["http://203.0.113.1/elsewhere", "file:///etc/shadow"],
    }
    fake.manifest("app:1", manifest, DOCKER)
    puller.pull("app:1")
    assert len(puller.images.list()) == 1


def test_a_manifest_without_end_is_not_read_to_its_end(puller: Puller, fake: FakeRegistry) -> None:
    sent = 0

    def endless(handler: Any) -> bool:
        nonlocal sent
        if "/manifests/" not in handler.path:
            return False
        handler.send_response(200)
        handler.send_header("Content-Type", DOCKER)
        handler.send_header("Content-Length", str(100 << 20))
        handler.end_headers()
        while handler.command == "GET" and sent < 100 << 20:
            handler.wfile.write(b" " * (1 << 20))
            sent += 1 << 20
        return True

    fake.behave = endless
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EngineError, match="the registry's answer is longer than 4194304 bytes"):
        puller.pull("app:1")
    assert sent < 50 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_redirect_that_goes_round_is_followed_ten_times(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])

    def loop(handler: Any) -> bool:
        if "/blobs/" in handler.path:
            handler.answer(307, b"", Location=handler.path)
        return "/blobs/" in handler.path

    fake.behave = loop
    with pytest.raises(EngineError, match="stopped after 10 redirects"):
        puller.pull("app:1")
    assert len(blob_requests(fake)) == 10
    puller.assert_nothing_came()


@pytest.mark.parametrize("target", ["file:///etc/shadow", "ftp://127.0.0.1/x", "gopher://127.0.0.1:1/x"])
def test_a_redirect_leads_to_http_only(puller: Puller, fake: FakeRegistry, target: str) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])

    def away(handler: Any) -> bool:
        if "/blobs/" in handler.path:
            handler.answer(302, b"", Location=target)
        return "/blobs/" in handler.path

    fake.behave = away
    with pytest.raises(EngineError, match="unsupported protocol scheme in a redirect"):
        puller.pull("app:1")


def test_what_comes_with_a_redirect_is_not_read_for_ever(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    sent = 0

    def chatty(handler: Any) -> bool:
        nonlocal sent
        if not handler.path.startswith("/v2/app/blobs/") or "again" in handler.path:
            return False
        handler.send_response(307)
        handler.send_header("Location", handler.path.replace("/blobs/", "/again/blobs/"))
        handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * (1 << 20))
            sent += 1 << 20

    fake.behave = chatty
    puller.pull("app:1")
    assert sent < 100 << 20
    assert len(puller.images.list()) == 1


@pytest.mark.parametrize("lie", ["bytes 0-599999/600000", "bytes 5-9/10", "nonsense", ""])
def test_a_part_that_is_another_part_starts_over(puller: Puller, fake: FakeRegistry, lie: str) -> None:
    fake.image("app:1", [Layer({"noise": NOISE})])
    content = max(fake.blobs.values(), key=len)
    ranges: list[str] = []

    def cut(handler: Any) -> bool:
        if fake.blobs.get(handler.path.rpartition("/")[2]) is not content:
            return False
        ranges.append(handler.headers.get("Range", ""))
        if len(ranges) == 1:
            handler.cut_off(content, 400_000)
        else:
            handler.answer(206 if ranges[-1] else 200, content, Content_Range=lie)
        return True

    fake.behave = cut
    puller.pull("app:1")
    assert ranges == ["", "bytes=400000-"]


def test_a_part_that_there_is_not_starts_over(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"noise": NOISE})])
    content = max(fake.blobs.values(), key=len)
    ranges: list[str] = []

    def cut(handler: Any) -> bool:
        if fake.blobs.get(handler.path.rpartition("/")[2]) is not content:
            return False
        ranges.append(handler.headers.get("Range", ""))
        if len(ranges) == 1:
            handler.cut_off(content, 400_000)
        elif ranges[-1]:
            handler.answer(416, b"")
        else:
            return False
        return True

    fake.behave = cut
    puller.pull("app:1")
    assert ranges == ["", "bytes=400000-", ""]


def test_one_who_says_nothing_more_is_asked_again_for_the_rest(tmp_path: Path, fake: FakeRegistry) -> None:
    puller = Puller(tmp_path, fake, read_timeout=0.5)
    fake.image("app:1", [Layer({"noise": NOISE})])
    content = max(fake.blobs.values(), key=len)
    ranges: list[str] = []
    go_on = threading.Event()

    def stall(handler: Any) -> bool:
        if fake.blobs.get(handler.path.rpartition("/")[2]) is not content:
            return False
        ranges.append(handler.headers.get("Range", ""))
        if len(ranges) > 1:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:300_000])
        handler.wfile.flush()
        go_on.wait(30)
        handler.close_connection = True
        return True

    fake.behave = stall
    try:
        puller.pull("app:1")
    finally:
        go_on.set()
    assert ranges == ["", "bytes=300000-"]


def challenged(realm: str) -> Callable[[Any], bool]:
    """A registry that wants a token from there."""

    def behave(handler: Any) -> bool:
        if "/token" in handler.path or handler.headers.get("Authorization"):
            return False
        handler.answer(401, b"{}", WWW_Authenticate=f'Bearer realm="{realm}",service="s"')
        return True

    return behave


@pytest.mark.parametrize(
    "realm", ["file:///etc/shadow", "ftp://127.0.0.1/token", "//x/token", "http:///x", ""]
)
def test_tokens_come_by_http_only(puller: Puller, fake: FakeRegistry, realm: str) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    fake.behave = challenged(realm)
    with pytest.raises(EngineError, match="invalid realm in the registry's challenge"):
        puller.pull("app:1", auth=AuthConfig("user", "secret"))


@pytest.mark.parametrize("token", ["top-secret\r\nX-Injected: 1", "top-secret \u20ac", "top-secret x"])
def test_a_token_is_no_place_for_headers_nor_told_in_errors(
    puller: Puller, fake: FakeRegistry, token: str
) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    ask = challenged(f"http://{fake.address}/token")

    def behave(handler: Any) -> bool:
        if "/token" not in handler.path:
            return ask(handler)
        handler.answer(200, json.dumps({"token": token}).encode())
        return True

    fake.behave = behave
    for auth in (AuthConfig("user", "secret"), AuthConfig(registrytoken=token)):
        with pytest.raises(EngineError, match="the registry's token has characters") as failure:
            puller.pull("app:1", auth=auth)
        assert "secret" not in str(failure.value)
    assert not any("X-Injected" in headers for _, _, headers in fake.requests)


def test_an_answer_that_breaks_off_is_a_failure_that_is_named(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    ask = challenged(f"http://{fake.address}/token")

    def behave(handler: Any) -> bool:
        if "/token" not in handler.path:
            return ask(handler)
        handler.cut_off(b'{"token":"x"}', 5)
        return True

    fake.behave = behave
    with pytest.raises(EngineError, match="unexpected EOF") as failure:
        puller.pull("app:1", auth=AuthConfig("user", "secret"))
    assert "account=" not in str(failure.value)


@pytest.mark.parametrize("part", ["/manifests/1", "/blobs/"])
def test_a_short_answer_that_breaks_off_is_asked_for_again(
    puller: Puller, fake: FakeRegistry, part: str
) -> None:
    fake.image("app:1", [])
    cut: set[str] = set()

    def once(handler: Any) -> bool:
        if part not in handler.path or handler.command == "HEAD" or handler.path in cut:
            return handler.command == "HEAD" and bool(handler.answer(404, b""))
        cut.add(handler.path)
        handler.cut_off(b"{" + b" " * 1000, 500)
        return True

    fake.behave = once
    puller.pull("app:1")
    assert cut
    assert len(puller.images.list()) == 1


def tags(*names: object, link: str = "") -> Callable[[Any], bool]:
    """A registry that lists these."""

    def behave(handler: Any) -> bool:
        if "/tags/list" not in handler.path:
            return False
        more = {"Link": f'<{link}>; rel="next"'} if link else {}
        handler.answer(200, json.dumps({"name": "app", "tags": list(names)}).encode(), **more)
        return True

    return behave


@pytest.mark.parametrize("tag", ["../../other/manifests/1", "a b", "1?x=y", "\r\nX: 1", 7.5, "x" * 129])
def test_a_tag_that_is_none_is_not_asked_for(puller: Puller, fake: FakeRegistry, tag: object) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    fake.behave = tags("1", tag)
    if isinstance(tag, float):  # "7.5" is one
        with pytest.raises(NotFound):
            puller.pull("app")
        return
    with pytest.raises(EngineError, match="invalid tag format"):
        puller.pull("app")
    assert fake.asked("GET", "/manifests/") == 0
    puller.assert_nothing_came()


def test_pages_of_tags_that_go_round_end(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    fake.behave = tags("1", link="/v2/app/tags/list?last=1")
    puller.pull("app")
    assert fake.asked("GET", "/tags/list") == 2


@pytest.mark.parametrize(
    "wait", ["86400", formatdate(time.time() + 86400, usegmt=True)], ids=["number", "date"]
)
def test_nobody_is_waited_for_for_hours(puller: Puller, fake: FakeRegistry, wait: str) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])

    def busy(handler: Any) -> bool:
        if "/blobs/" in handler.path:
            handler.answer(503, b"", Retry_After=wait)
        return "/blobs/" in handler.path

    fake.behave = busy
    with pytest.raises(EngineError, match="received unexpected HTTP status: 503 Service Unavailable"):
        puller.pull("app:1")
    assert len(blob_requests(fake)) == 1


def test_a_pull_rate_limit_is_told_at_once(puller: Puller, fake: FakeRegistry) -> None:
    said = "You have reached your pull rate limit."
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": said}]}).encode()

    def limit(handler: Any) -> bool:
        if "/manifests/" in handler.path:
            handler.answer(429, body)
        return "/manifests/" in handler.path

    fake.behave = limit
    with pytest.raises(EngineError, match=f"^toomanyrequests: {said}$"):
        puller.pull("app:1")
    assert fake.asked("GET", "/manifests/") == 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_bomb_ends_with_the_disk_and_gives_it_back(small: Path, fake: FakeRegistry) -> None:
    size = 10 << 30
    header = tarfile.TarInfo("zeros")
    header.size = size
    tar = io.BytesIO(header.tobuf())
    zeros = gzip.compress(bytes(16 << 20), 9)
    bomb = gzip.compress(tar.getvalue()) + zeros * (size // (16 << 20)) + gzip.compress(bytes(1024))
    assert len(bomb) < 16 << 20
    fake.image("bomb:1", [Layer({"a": b"x"})])
    manifest = manifest_of(fake, "bomb:1")
    manifest["layers"] = [fake.blob(bomb, "application/vnd.docker.image.rootfs.diff.tar.gzip")]
    fake.manifest("bomb:1", manifest, DOCKER)
    puller = Puller(small, fake)
    used = sum(path.stat().st_blocks for path in small.rglob("*"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EngineError, match=r"failed to register layer: .*[Nn]o space left"):
        puller.pull("bomb:1")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10
    puller.assert_nothing_came()
    assert sum(path.stat().st_blocks for path in small.rglob("*")) == used


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_holes_take_no_space(puller: Puller, fake: FakeRegistry, tmp_path: Path, form: str) -> None:
    if "GNU tar" not in subprocess.run(["tar", "--version"], capture_output=True, text=True).stdout:
        pytest.skip("only GNU tar packs holes")
    with (tmp_path / "big").open("wb") as file:
        file.truncate(10 << 30)
        file.seek(5 << 30)
        file.write(b"middle")
    command = ["tar", "-S", "--format", form, "-C", tmp_path, "-c", "big"]
    tar = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(tar) < 1 << 20
    fake.image("app:1", [Layer({"a": b"x"})])
    manifest = manifest_of(fake, "app:1")
    config = json.loads(fake.blobs[manifest["config"]["digest"]])
    config["rootfs"]["diff_ids"] = [f"sha256:{hashlib.sha256(tar).hexdigest()}"]
    manifest["config"] = fake.blob(json.dumps(config).encode(), manifest["config"]["mediaType"])
    manifest["layers"] = [fake.blob(tar, manifest["layers"][0]["mediaType"])]
    fake.manifest("app:1", manifest, DOCKER)
    puller.pull("app:1")
    (big,) = (puller.root / "vfs").rglob("big")
    assert big.stat().st_size == 10 << 30
    assert big.stat().st_blocks * 512 < 1 << 20
    (layer,) = puller.layers.layers()
    with puller.layers.tar_stream(layer) as stream:
        assert hashlib.sha256(stream.read()).hexdigest() == hashlib.sha256(tar).hexdigest()


def test_nobody_is_left_and_nothing_goes_on(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"noise": NOISE}), Layer({"b": b"x"})])
    content = max(fake.blobs.values(), key=len)
    asked, ended = threading.Event(), threading.Event()

    def trickle(handler: Any) -> bool:
        if fake.blobs.get(handler.path.rpartition("/")[2]) is not content:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        try:
            for start in itertools.count(step=1000):
                handler.wfile.write(content[start : start + 1000])
                asked.set()
                time.sleep(0.02)
        except OSError:
            ended.set()
        handler.close_connection = True
        return True

    fake.behave = trickle

    async def two() -> None:
        service = puller.service()
        pulls = [asyncio.create_task(puller.pull_with(service, "app:1")) for _ in range(2)]
        await asyncio.to_thread(asked.wait, 20)
        await until(lambda: len(puller.said("Pulling fs layer")) == 4)
        for each in pulls:
            assert not ended.is_set()
            each.cancel()
            await asyncio.wait([each])

    asyncio.run(two())
    assert ended.wait(10)
    puller.assert_nothing_came()


def test_who_comes_after_a_failure_does_not_share_it(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"noise": NOISE}), Layer({"b": b"x"})])
    bad = max(fake.blobs, key=lambda digest: len(fake.blobs[digest]))
    good = fake.blobs[bad]
    failed = threading.Event()

    def spoiled(handler: Any) -> bool:
        if handler.path.endswith(bad) and not failed.is_set():
            failed.set()
            handler.answer(200, good[:-1] + b"?")
            return True
        return False

    fake.behave = spoiled

    async def two() -> None:
        service = puller.service()
        transfers = service.transfers
        leave, left = transfers.leave, asyncio.Event()

        async def late(*arguments: Any) -> None:  # the first has failed, and is about to leave
            if not left.is_set():
                left.set()
                await second
            await leave(*arguments)

        transfers.leave = late  # type: ignore[method-assign]
        first = asyncio.create_task(puller.pull_with(service, "app:1"))
        second = asyncio.create_task(after(service))
        with pytest.raises(EngineError, match="filesystem layer verification failed"):
            await first
        await second

    async def after(service: Any) -> None:
        await until(lambda: any(each.has_failed() for each in service.transfers._transfers.values()))
        await puller.pull_with(service, "app:1")

    asyncio.run(two())
    assert len(puller.images.list()) == 1
    assert blob_requests(fake).count(bad) == 2
