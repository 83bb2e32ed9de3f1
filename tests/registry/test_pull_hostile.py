"""Pulling from registries that lie, stall, hang up or are busy; and what is shared between pulls."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from harness.images import Layer
from harness.registry import FakeRegistry, gzipped
from registry.pulling import Puller, blob_requests

from longshore.errors import EngineError, NotFound
from longshore.types.registry import AuthConfig

pytestmark = pytest.mark.usefixtures("root")
_RANDOM = random.Random(1)
NOISE = _RANDOM.randbytes(600_000)


@pytest.mark.parametrize("oci", [False, True], ids=["docker", "oci"])
@pytest.mark.parametrize(
    "compress",
    [lambda tar: tar, gzipped, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "zstd"],
)
def test_every_kind_of_image_is_understood(
    puller: Puller, fake: FakeRegistry, oci: bool, compress: Callable[[bytes], bytes]
) -> None:
    layers = [Layer({"a": b"one"}), Layer({"b": NOISE}), Layer({"a": b"two"})]
    manifest = fake.image("app:1", layers, compress=compress, oci=oci)
    puller.pull("app:1")
    inspected = puller.images.inspect(f"{fake.address}/app:1")
    assert inspected.RepoDigests == [f"{fake.address}/app@{manifest['digest']}"]
    assert inspected.RootFS.Layers == [
        f"sha256:{hashlib.sha256(layer.tar()).hexdigest()}" for layer in layers
    ]
    assert puller.messages[0] == {"status": "Pulling from app", "id": "1"}
    assert puller.messages[-2:] == [
        {"status": f"Digest: {manifest['digest']}"},
        {"status": f"Status: Downloaded newer image for {fake.address}/app:1"},
    ]
    assert len(puller.said("Pulling fs layer")) == len(puller.said("Pull complete")) == 3


def test_layers_that_are_here_are_not_fetched_again(puller: Puller, fake: FakeRegistry) -> None:
    base = Layer({"base": NOISE})
    fake.image("one:1", [base])
    fake.image("two:1", [base, Layer({"top": b"x"})])
    puller.pull("one:1")
    before = len(blob_requests(fake))
    puller.pull("two:1")
    assert len(blob_requests(fake)) - before == 2  # the configuration and the upper layer
    assert len(puller.said("Already exists")) == 1
    puller.pull("two:1")
    assert len(blob_requests(fake)) - before == 2
    assert puller.messages[-1]["status"] == f"Status: Image is up to date for {fake.address}/two:1"


def test_by_digest_and_all_tags(puller: Puller, fake: FakeRegistry) -> None:
    first = fake.image("app:1", [Layer({"a": b"1"})])
    fake.image("app:2", [Layer({"a": b"2"})])
    puller.pull(f"app@{first['digest']}")
    image = puller.images.inspect(f"{fake.address}/app@{first['digest']}")
    assert (image.RepoTags, len(image.RepoDigests)) == ([], 1)
    page = {"n": 0}

    def pages(handler: Any) -> bool:
        if "/tags/list" not in handler.path:
            return False
        page["n"] += 1
        link = {} if "last" in handler.path else {"Link": '</v2/app/tags/list?last=1>; rel="next"'}
        tags = ["2"] if "last" in handler.path else ["1"]
        handler.answer(200, json.dumps({"name": "app", "tags": tags}).encode(), **link)
        return True

    fake.behave = pages
    puller.pull("app")
    assert page["n"] == 2
    assert sorted(tag for image in puller.images.list() for tag in image.RepoTags) == [
        f"{fake.address}/app:1",
        f"{fake.address}/app:2",
    ]


def test_an_index_gives_the_platform_that_was_asked_for(puller: Puller, fake: FakeRegistry) -> None:
    manifests = []
    for architecture, variant in (("arm", "v6"), ("arm64", "v8"), ("amd64", "")):
        content = Layer({"arch": f"{architecture}{variant}".encode()})
        descriptor = fake.image(
            f"multi:{architecture}", [content], architecture=architecture, variant=variant
        )
        platform = {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})
        manifests.append(descriptor | {"platform": platform})
    media_type = "application/vnd.oci.image.index.v1+json"
    index = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    digest = fake.manifest("multi:1", index, media_type)["digest"]
    for asked, architecture in (("linux/arm64", "arm64"), ("linux/arm/v7", "arm"), ("amd64", "amd64")):
        puller.pull("multi:1", asked)
        inspected = puller.images.inspect(f"{fake.address}/multi:1")
        assert inspected.Architecture == architecture
        assert f"{fake.address}/multi@{digest}" in inspected.RepoDigests
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        puller.pull("multi:1", "linux/s390x")


def test_a_broken_connection_is_resumed_where_it_broke(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"noise": NOISE})])
    content = max(fake.blobs.values(), key=len)
    ranges: list[str] = []

    def cut(handler: Any) -> bool:
        if not handler.path.endswith(hashlib.sha256(content).hexdigest()):
            return False
        ranges.append(handler.headers.get("Range", ""))
        if len(ranges) == 1:
            handler.cut_off(content, 400_000)
            return True
        return False

    fake.behave = cut
    puller.pull("app:1")
    assert ranges == ["", "bytes=400000-"]
    assert puller.said("Retrying in 1 second")


def test_a_registry_that_ignores_ranges_starts_over(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"noise": NOISE})])
    content = max(fake.blobs.values(), key=len)
    times = []

    def cut(handler: Any) -> bool:
        if not handler.path.endswith(hashlib.sha256(content).hexdigest()):
            return False
        times.append(1)
        if len(times) == 1:
            handler.cut_off(content, 400_000)
        else:
            handler.answer(200, content)
        return True

    fake.behave = cut
    puller.pull("app:1")
    assert len(times) == 2


def test_who_always_hangs_up_is_given_up_on(tmp_path: Path, fake: FakeRegistry) -> None:
    puller = Puller(tmp_path, fake, max_download_attempts=3)
    fake.image("app:1", [Layer({"noise": NOISE}), Layer({"b": b"x"})])
    content = max(fake.blobs.values(), key=len)
    tries = []

    def cut(handler: Any) -> bool:
        if not handler.path.endswith(hashlib.sha256(content).hexdigest()):
            return False
        tries.append(1)
        handler.cut_off(content, 0)
        return True

    fake.behave = cut
    with pytest.raises(EngineError, match="EOF"):
        puller.pull("app:1")
    assert len(tries) == 3
    puller.assert_nothing_came()


def _flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_flip, "filesystem layer verification failed for digest"),
        (lambda content: content + b"more", "filesystem layer verification failed for digest"),
    ],
    ids=["altered", "longer"],
)
def test_a_lie_about_a_layer_is_found(
    puller: Puller, fake: FakeRegistry, spoil: Callable[[bytes], bytes], message: str
) -> None:
    fake.image("app:1", [Layer({"noise": NOISE}), Layer({"b": b"x"})])
    digest = max(fake.blobs, key=lambda digest: len(fake.blobs[digest]))
    fake.blobs[digest] = spoil(fake.blobs[digest])
    with pytest.raises(EngineError, match=message):
        puller.pull("app:1")
    puller.assert_nothing_came()


def test_a_lie_about_a_configuration_is_found(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    digest = next(digest for digest, content in fake.blobs.items() if content.startswith(b"{"))
    fake.blobs[digest] = fake.blobs[digest].replace(b"true", b"evil")
    with pytest.raises(EngineError, match="image config verification failed"):
        puller.pull("app:1")
    puller.assert_nothing_came()


def test_a_lie_about_a_manifest_is_found(puller: Puller, fake: FakeRegistry) -> None:
    honest = fake.image("app:1", [Layer({"a": b"x"})])
    other = fake.image("app:2", [Layer({"a": b"y"})])
    for key in list(fake.manifests):
        if key.endswith(honest["digest"]):
            fake.manifests[key] = fake.manifests[f"app/manifests/{other['digest']}"]
    with pytest.raises(EngineError, match="manifest verification failed for digest"):
        puller.pull(f"app@{honest['digest']}")
    puller.assert_nothing_came()


def test_a_layer_that_is_not_what_the_configuration_says_is_found(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    content, media_type = fake.manifests["app/manifests/1"]
    manifest = json.loads(content)
    manifest["layers"] = [fake.blob(gzip.compress(Layer({"a": b"evil"}).tar()), "application/vnd.docker.x")]
    fake.manifest("app:1", manifest, media_type)
    with pytest.raises(EngineError, match="failed to register layer: invalid diffID for layer"):
        puller.pull("app:1")
    puller.assert_nothing_came()


@pytest.mark.parametrize(
    "manifest",
    [
        b"not JSON",
        b"[]",
        b"{}",
        b'{"schemaVersion":2,"config":{"digest":"sha256:../../x","size":1},"layers":[]}',
        b'{"schemaVersion":2,"config":{"digest":"sha256:' + b"0" * 64 + b'","size":-1},"layers":[]}',
        b'{"schemaVersion":2,"manifests":[{"digest":7}]}',
    ],
)
def test_a_malformed_manifest_is_refused(puller: Puller, fake: FakeRegistry, manifest: bytes) -> None:
    fake.manifests["app/manifests/1"] = manifest, "application/vnd.oci.image.manifest.v1+json"
    fake.manifests[f"app/manifests/sha256:{hashlib.sha256(manifest).hexdigest()}"] = fake.manifests[
        "app/manifests/1"
    ]
    with pytest.raises(EngineError):
        puller.pull("app:1")
    puller.assert_nothing_came()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_registry_is_asked_again_when_it_says(puller: Puller, fake: FakeRegistry, status: int) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    refused: dict[str, float] = {}
    waited: list[float] = []

    def busy(handler: Any) -> bool:
        if handler.command == "HEAD" or handler.path == "/v2/":
            return False
        if handler.path not in refused:
            refused[handler.path] = time.monotonic()
            handler.answer(status, b"", Retry_After="1")
            return True
        waited.append(time.monotonic() - refused[handler.path])
        return False

    fake.behave = busy
    puller.pull("app:1")
    assert len(waited) >= 3
    assert min(waited) >= 0.9


def test_pulls_of_the_same_image_share_what_they_fetch(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"noise": NOISE}), Layer({"b": NOISE[:200_000]})])

    def slow(handler: Any) -> bool:
        if "/blobs/" in handler.path:
            time.sleep(0.3)
        return False

    fake.behave = slow

    async def both() -> None:
        service = puller.service()
        await asyncio.gather(*(puller.pull_with(service, "app:1") for _ in range(3)))

    asyncio.run(both())
    layers = [digest for digest, content in fake.blobs.items() if not content.startswith(b"{")]
    assert [blob_requests(fake).count(digest) for digest in layers] == [1, 1]
    assert all(layer.references <= 2 for layer in puller.layers.layers())


def test_no_more_downloads_at_once_than_allowed(tmp_path: Path, fake: FakeRegistry) -> None:
    puller = Puller(tmp_path, fake, max_concurrent_downloads=2)
    fake.image("app:1", [Layer({f"f{number}": b"x"}) for number in range(6)])
    lock, now, most = threading.Lock(), [0], [0]

    def counting(handler: Any) -> bool:
        if "/blobs/" in handler.path:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.1)
            with lock:
                now[0] -= 1
        return False

    fake.behave = counting
    puller.pull("app:1")
    assert most[0] == 2
    assert len(puller.said("Waiting")) == 4


def test_a_pull_that_is_cancelled_ends_at_once_and_leaves_nothing(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"b": b"x"}), Layer({"noise": NOISE})])
    content = max(fake.blobs.values(), key=len)
    stalled, go_on = threading.Event(), threading.Event()

    def stall(handler: Any) -> bool:
        if not handler.path.endswith(hashlib.sha256(content).hexdigest()):
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:1000])
        handler.wfile.flush()
        stalled.set()
        go_on.wait(30)
        handler.close_connection = True
        return True

    fake.behave = stall

    async def cancelled() -> float:
        pull = asyncio.create_task(puller.pull_with(puller.service(), "app:1"))
        await asyncio.to_thread(stalled.wait, 10)
        await asyncio.sleep(0.2)
        began = time.monotonic()
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        return time.monotonic() - began

    try:
        assert asyncio.run(cancelled()) < 3
    finally:
        go_on.set()
    puller.assert_nothing_came()


@pytest.mark.parametrize("part", ["/v2/", "/manifests/", "/blobs/"])
def test_a_registry_that_does_not_answer_holds_nobody(puller: Puller, fake: FakeRegistry, part: str) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    asked, go_on = threading.Event(), threading.Event()

    def stall(handler: Any) -> bool:
        if part in handler.path and (part != "/v2/" or handler.path == part):
            asked.set()
            go_on.wait(30)
        return False

    fake.behave = stall

    async def cancelled() -> float:
        pull = asyncio.create_task(puller.pull_with(puller.service(), "app:1"))
        await asyncio.to_thread(asked.wait, 10)
        began = time.monotonic()
        pull.cancel()
        await asyncio.wait([pull])
        return time.monotonic() - began

    try:
        assert asyncio.run(cancelled()) < 1
    finally:
        go_on.set()
    puller.assert_nothing_came()


def test_one_who_leaves_does_not_end_the_pull_of_another(puller: Puller, fake: FakeRegistry) -> None:
    fake.image("app:1", [Layer({"noise": NOISE})])
    content = max(fake.blobs.values(), key=len)
    asked, go_on = threading.Event(), threading.Event()

    def stall(handler: Any) -> bool:
        if handler.path.endswith(hashlib.sha256(content).hexdigest()):
            asked.set()
            go_on.wait(30)
        return False

    fake.behave = stall

    async def two() -> None:
        service = puller.service()
        first = asyncio.create_task(puller.pull_with(service, "app:1"))
        second = asyncio.create_task(puller.pull_with(service, "app:1"))
        await asyncio.to_thread(asked.wait, 10)
        await asyncio.sleep(0.3)
        first.cancel()
        await asyncio.wait([first])
        go_on.set()
        await second

    asyncio.run(two())
    assert blob_requests(fake).count(f"sha256:{hashlib.sha256(content).hexdigest()}") == 1
    assert len(puller.images.list()) == 1


def test_credentials_are_not_carried_to_where_a_registry_redirects(
    puller: Puller, fake: FakeRegistry
) -> None:
    fake.image("app:1", [Layer({"a": b"x"})])
    elsewhere = FakeRegistry()
    elsewhere.blobs = fake.blobs

    def redirect(handler: Any) -> bool:
        if handler.headers.get("Authorization") is None:
            handler.answer(401, b"{}", WWW_Authenticate='Basic realm="r"')
            return True
        if "/blobs/" in handler.path:
            handler.answer(307, b"", Location=f"http://{elsewhere.address}{handler.path}")
            return True
        return False

    fake.behave = redirect
    try:
        puller.pull("app:1", auth=AuthConfig("user", "secret"))
        assert len(elsewhere.requests) == 2
        assert all("Authorization" not in headers for _, _, headers in elsewhere.requests)
    finally:
        elsewhere.close()
