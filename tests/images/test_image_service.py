"""Images from archives into the store and back, their names and their end."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from longshore.build.changes import apply_changes
from longshore.errors import Conflict, EngineError, InvalidParameter, NotFound
from longshore.images.reference import Reference
from longshore.images.remove import Use
from longshore.images.service import ImageService
from longshore.layers.layer import Layer
from longshore.layers.store import LayerStore
from longshore.types.container import Config

Files = dict[str, bytes]


@pytest.fixture
def service(tmp_path: Path) -> ImageService:
    return ImageService(tmp_path, LayerStore(tmp_path))


def silent(_: dict[str, Any]) -> None:
    """For progress nobody looks at."""


def tar(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def config(layers: list[bytes], **more: Any) -> bytes:
    described = {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["true"], "Labels": {"a": "1"}}}
    rootfs = {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}
    return json.dumps({**described, "rootfs": rootfs, **more}).encode()


def docker_archive(layers: list[bytes], tags: list[str], **more: Any) -> Files:
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "c.json", "RepoTags": tags, "Layers": names}]
    return {
        **dict(zip(names, layers, strict=True)),
        "c.json": config(layers, **more),
        "manifest.json": json.dumps(manifest).encode(),
    }


def oci_archive(layers: list[bytes], name: str, compress: bool) -> Files:
    blobs: Files = {}

    def add(content: bytes, kind: str) -> dict[str, Any]:
        blobs[f"blobs/sha256/{digest(content)[7:]}"] = content
        return {"mediaType": kind, "digest": digest(content), "size": len(content)}

    kind = "application/vnd.oci.image."
    packed = [
        add(gzip.compress(layer) if compress else layer, kind + "layer.v1.tar+gzip") for layer in layers
    ]
    described = add(config(layers), kind + "config.v1+json")
    body = {"schemaVersion": 2, "mediaType": kind + "manifest.v1+json", "config": described, "layers": packed}
    manifest = add(json.dumps(body).encode(), kind + "manifest.v1+json")
    manifest["platform"] = {"os": "linux", "architecture": "amd64"}
    unknown = {**manifest, "platform": {"os": "unknown", "architecture": "unknown"}}
    nested = {"schemaVersion": 2, "mediaType": kind + "index.v1+json", "manifests": [unknown, manifest]}
    index = add(json.dumps(nested).encode(), kind + "index.v1+json")
    index["annotations"] = {"io.containerd.image.name": name}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [index]}).encode()
    return {**blobs, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}


LAYERS = [tar({"a": b"1" * 3000}), tar({"b": b"2"})]


def assert_empty(service: ImageService) -> None:
    assert service.images.all() == []
    assert service.layers.layers() == []
    assert service.layers.driver.ids() == set()


def load(service: ImageService, files: Files, progress: Any = silent) -> list[str]:
    return service.load(io.BytesIO(tar(files)), progress)


def save(service: ImageService, *names: str) -> bytes:
    out = io.BytesIO()
    service.save(list(names), out.write)
    return out.getvalue()


def test_round_trip_keeps_every_digest(service: ImageService, tmp_path: Path) -> None:
    messages: list[dict[str, Any]] = []
    (id,) = load(service, docker_archive(LAYERS, ["app:1", "other/app:2"]), messages.append)
    assert id == digest(config(LAYERS))
    streams = [message["stream"] for message in messages if "stream" in message]
    assert streams == ["Loaded image: app:1\n", "Loaded image: other/app:2\n"]
    assert messages[0]["status"] == "Loading layer"
    saved = save(service, "app:1", "other/app:2")
    other = tmp_path / "other"
    second = ImageService(other, LayerStore(other))
    assert second.load(io.BytesIO(gzip.compress(saved)), silent) == [id]
    assert save(second, "app:1", "other/app:2") == saved
    assert second.resolve("app:1").raw == config(LAYERS)


@pytest.mark.parametrize("compress", [True, False])
def test_oci_layouts(service: ImageService, compress: bool) -> None:
    (id,) = load(service, oci_archive(LAYERS, "docker.io/library/app:3", compress))
    assert service.resolve("app:3").id == id
    assert service.resolve("app:3").chain_id == service.layers.layers()[-1].chain_id


def test_both_halves_of_what_is_saved_load(service: ImageService, tmp_path: Path) -> None:
    load(service, docker_archive(LAYERS, ["app:1"]))
    saved = save(service, "app:1")
    for number, dropped in enumerate(("manifest.json", "index.json")):
        with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
            files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
        del files[dropped]
        root = tmp_path / f"half{number}"
        half = ImageService(root, LayerStore(root))
        load(half, files)
        assert half.resolve("app:1").id == service.resolve("app:1").id


def test_untagged_image_is_named_by_id(service: ImageService) -> None:
    messages: list[dict[str, Any]] = []
    (id,) = service.load(io.BytesIO(tar(docker_archive(LAYERS, []))), messages.append, quiet=True)
    assert messages == [{"stream": f"Loaded image ID: {id}\n"}]
    assert service.resolve(id[7:15]).id == id


def broken_archives() -> dict[str, Files]:
    good = docker_archive(LAYERS, ["app:1"])
    link = json.loads(good["manifest.json"])
    outside = [{**link[0], "Layers": ["../../etc/passwd", "1/layer.tar"]}]
    fewer = [{**link[0], "Layers": ["0/layer.tar"]}]
    return {
        "no manifest": {"x": b"y"},
        "manifest is no JSON": {**good, "manifest.json": b"{"},
        "manifest is no list": {**good, "manifest.json": b'{"a": 1}'},
        "layer outside": {**good, "manifest.json": json.dumps(outside).encode()},
        "fewer layers": {**good, "manifest.json": json.dumps(fewer).encode()},
        "wrong layer": {**good, "1/layer.tar": tar({"b": b"3"})},
        "cut layer": {**good, "1/layer.tar": LAYERS[1][:700]},
        "hostile layer": docker_archive([LAYERS[0], tar({"../x": b"1"})], ["app:1"]),
        "bad tag": docker_archive(LAYERS, ["Bad:1"]),
        "tag without tag": docker_archive(LAYERS, ["app"]),
        "config without rootfs": {**good, "c.json": b"{}"},
        "windows": docker_archive(LAYERS, ["app:1"], os="windows"),
        "long history": docker_archive(LAYERS, ["app:1"], history=[{}, {}, {}]),
    }


@pytest.mark.parametrize("what", broken_archives())
def test_broken_archives_leave_nothing(service: ImageService, what: str) -> None:
    with pytest.raises(InvalidParameter):
        load(service, broken_archives()[what])
    assert_empty(service)


def test_cut_archives_leave_nothing(service: ImageService) -> None:
    whole = tar(docker_archive(LAYERS, ["app:1"]))
    for length in (100, 1000, 5000, len(whole) // 2):
        with pytest.raises(InvalidParameter):
            service.load(io.BytesIO(whole[:length]), silent)
    with pytest.raises(InvalidParameter):
        service.load(io.BytesIO(gzip.compress(whole)[:-100]), silent)
    assert_empty(service)


def test_second_image_failing_takes_the_first_with_it(service: ImageService) -> None:
    files = docker_archive(LAYERS, ["app:1"])
    manifest = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps([*manifest, {**manifest[0], "Config": "missing"}]).encode()
    with pytest.raises(InvalidParameter, match="missing"):
        load(service, files)
    assert_empty(service)


def test_loading_at_once(service: ImageService) -> None:
    files = docker_archive(LAYERS, ["app:1"])
    threads = [threading.Thread(target=load, args=(service, files)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(service.layers.layers()) == 2
    service.delete("app:1")
    assert_empty(service)


def test_everything_is_there_after_a_restart(service: ImageService, tmp_path: Path) -> None:
    (id,) = load(service, docker_archive(LAYERS, ["app:1"]))
    again = ImageService(tmp_path, LayerStore(tmp_path))
    assert again.layers.cleanup_orphans() == 0
    assert again.resolve("app:1").id == id
    assert [item.Deleted or item.Untagged for item in again.delete("app:1")][:2] == ["app:1", id]
    assert_empty(again)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch", "No such image: nosuch:latest"),
        ("a/b:c", "No such image: a/b:c"),
        ("sha256:" + "0" * 64, "No such image: sha256:" + "0" * 64),
    ],
)
def test_unknown_images(service: ImageService, name: str, message: str) -> None:
    with pytest.raises(NotFound) as caught:
        service.resolve(name)
    assert caught.value.message == message


def test_what_a_killed_daemon_was_bringing_in_or_deleting_goes(tmp_path: Path) -> None:
    def opened() -> tuple[LayerStore, ImageService]:
        layers = LayerStore(tmp_path / "data", "vfs")
        service = ImageService(tmp_path / "data", layers)
        layers.release_loose()
        layers.cleanup_orphans()
        return layers, service

    layers, service = opened()
    load(service, docker_archive([tar({"a": b"1"}), tar({"b": b"2"})], ["app:1"]))
    image = service.resolve("app:1")
    # On its way: a layer on those of the image, and another one on it.
    chain: str | None = image.chain_id
    for name in ("c", "d"):
        chain = layers.register(io.BytesIO(tar({name: b"x"})), chain).chain_id
    assert len(layers.layers()) == 4
    layers, service = opened()
    assert {layer.chain_id for layer in layers.layers()} >= {image.chain_id}
    assert len(layers.layers()) == len(layers.driver.ids()) == 2
    # Half deleted: its configuration is gone.
    layers.loosen(layers.get(image.chain_id))
    base = tmp_path / "data/image/vfs/imagedb"
    (base / "content/sha256" / image.id[7:]).unlink()
    layers, service = opened()
    assert layers.layers() == []
    assert layers.driver.ids() == set()
    assert list((base / "metadata/sha256").iterdir()) == []
    assert list((tmp_path / "data/image/vfs/layerdb/loose").iterdir()) == []


def test_rules_of_deletion(service: ImageService) -> None:
    (id,) = load(service, docker_archive(LAYERS, ["app:1", "app:2"]))
    short = id[7:19]
    running = [Use("c" * 64, True)]
    stopped = [Use("d" * 64, False)]

    def refused(name: str, uses: list[Use], force: bool = False) -> str:
        with pytest.raises(Conflict) as caught:
            service.delete(name, force, in_use=lambda _: uses)
        return caught.value.message

    begin = f"conflict: unable to delete {short}"
    assert refused(short, []) == f"{begin} (must be forced) - image is referenced in multiple repositories"
    reason = f"image is being used by running container {'c' * 12}"
    assert refused(short, running, force=True) == f"{begin} (cannot be forced) - {reason}"
    assert [item.Untagged for item in service.delete("app:2", in_use=lambda _: running)] == ["app:2"]
    assert refused("app:1", stopped) == (
        'conflict: unable to remove repository reference "app:1" (must force) - container '
        f"{'d' * 12} is using its referenced image {short}"
    )
    reason = f"image is being used by stopped container {'d' * 12}"
    assert refused(short, stopped) == f"{begin} (must be forced) - {reason}"
    assert service.resolve("app:1").id == id
    gone = service.delete(short, force=True, in_use=lambda _: stopped)
    assert [item.Deleted for item in gone][1] == id
    assert_empty(service)


@pytest.mark.parametrize("when", ["before", "after"])
def test_removed_while_it_is_named(service: ImageService, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    id = service.import_(io.BytesIO(tar({"f": b"x"})))
    add_tag, delete = service.references.add_tag, service.images.delete

    def named_late(reference: Reference, id: str, force: bool = True) -> None:
        service.delete(id)
        add_tag(reference, id, force)

    def removed_late(id: str) -> list[Layer]:
        service.tag(id, "name")
        return delete(id)

    if when == "before":
        monkeypatch.setattr(service.references, "add_tag", named_late)
        with pytest.raises(NotFound, match=f"No such image: {id}"):
            service.tag(id, "name")
    else:
        monkeypatch.setattr(service.images, "delete", removed_late)
        service.delete(id)
    assert service.references.all() == {}
    assert service.layers.layers() == []


def test_import_with_changes(service: ImageService) -> None:
    changes = [
        'CMD ["sh", "-c", "x"]',
        "ENTRYPOINT /run me",
        "ENV A=1 B='x y'",
        "EXPOSE 80 53/udp 8000-8001",
        "LABEL k=v",
        "USER 1:2",
        'VOLUME ["/data"]',
        "WORKDIR /w",
        "STOPSIGNAL SIGINT",
        "HEALTHCHECK --interval=5s --retries=2 CMD test -e /x",
        "ONBUILD RUN true",
    ]
    id = service.import_(io.BytesIO(LAYERS[0]), "app", "1", "hello", apply_changes(Config(), changes))
    config = service.resolve("app:1").config
    assert config["Cmd"] == ["sh", "-c", "x"]
    assert config["Entrypoint"] == ["/bin/sh", "-c", "/run me"]
    assert config["Env"] == ["A=1", "B=x y"]
    assert sorted(config["ExposedPorts"]) == ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]
    assert config["Volumes"] == {"/data": {}}
    assert config["Healthcheck"] == {
        "Interval": 5_000_000_000,
        "Retries": 2,
        "Test": ["CMD-SHELL", "test -e /x"],
    }
    assert service.inspect("app:1").Comment == "hello"
    assert service.history(id)[0].Tags == ["app:1"]
    assert len(service.layers.layers()) == 1


def test_lists_by_filter(service: ImageService) -> None:
    load(service, docker_archive(LAYERS[:1], ["old:1"], created="2020-01-01T00:00:00Z"))
    load(service, docker_archive(LAYERS, ["new:1", "new:2"], created="2021-01-01T00:00:00Z"))
    load(service, docker_archive(LAYERS[1:], [], created="2022-01-01T00:00:00Z", config={}))

    def names(**filters: str) -> list[list[str]]:
        return [item.RepoTags for item in service.list({key: [value] for key, value in filters.items()})]

    assert names() == [[], ["new:1", "new:2"], ["old:1"]]
    assert names(dangling="true") == [[]]
    assert names(label="a=1") == [["new:1", "new:2"], ["old:1"]]
    assert names(before="new:1") == [["old:1"]]
    assert names(since="old:1") == [[], ["new:1", "new:2"]]
    assert names(reference="n*:2") == [["new:2"]]
    assert names(until="2020-06-01T00:00:00Z") == [["old:1"]]
    with pytest.raises(InvalidParameter, match="invalid filter 'nonsense'"):
        names(nonsense="1")
    shared = {item.Id: item.SharedSize for item in service.list(shared_size=True)}
    assert shared[service.resolve("new:1").id] == 3000
    assert service.prune().SpaceReclaimed == 1
    assert [item.RepoTags for item in service.list()] == [["new:1", "new:2"], ["old:1"]]
    service.prune({"dangling": ["false"]})
    assert_empty(service)


def test_a_family_is_pruned_at_once(service: ImageService) -> None:
    """The parent has names and children: it loses the ones, and goes with the last of the others."""
    load(service, docker_archive(LAYERS[:1], ["parent:1", "parent:2"]))
    load(service, docker_archive(LAYERS, ["child:1"]))
    middle = service.images.create(config(LAYERS, author="me"))
    service.images.set_parent(middle, service.resolve("parent:1").id)
    service.images.set_parent(service.resolve("child:1").id, middle)
    # What is not listed shares nothing.
    sizes = {tag: item.SharedSize for item in service.list(shared_size=True) for tag in item.RepoTags}
    assert sizes == {"parent:1": 3000, "parent:2": 3000, "child:1": 3000}

    def used(id: str) -> list[Use]:
        return [Use("c" * 64, False)] if id == middle else []

    service.prune({"dangling": ["false"]}, in_use=used)
    assert sorted(image.id for image in service.images.all()) == sorted(
        [middle, service.images.parent(middle)]
    )
    assert service.references.all() == {}
    service.prune()
    assert_empty(service)


def test_saved_by_a_wrong_name(service: ImageService) -> None:
    load(service, docker_archive(LAYERS, ["app:1"]))
    written: list[bytes] = []
    with pytest.raises(EngineError, match="No such image: nosuch:latest"):
        service.save(["app:1", "nosuch"], written.append)
    assert written == []


def test_memory_is_bounded(tmp_path: Path) -> None:
    layer = tmp_path / "layer.tar"
    with tarfile.open(layer, "w") as archive:
        info = tarfile.TarInfo("big")
        info.size = 200 << 20
        with Path("/dev/zero").open("rb") as zeros:
            archive.addfile(info, zeros)
    script = """
import resource, sys
from pathlib import Path
from longshore.layers.store import LayerStore
store = LayerStore(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(sys.argv[2], "rb") as tar:
    layer = store.register(tar, None)
for _ in iter(lambda s=store.tar_stream(layer): s.read(1 << 20), b""): pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    import sys

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "root"), str(layer)], stdout=subprocess.PIPE, check=True
    )
    assert int(done.stdout) < 32 * 1024
