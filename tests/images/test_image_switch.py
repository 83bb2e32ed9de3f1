"""A host changes over from dockerd and back, with nothing migrated."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Dockerd

from longshore.build.changes import apply_changes
from longshore.images.service import ImageService
from longshore.layers.store import LayerStore
from longshore.types.container import Config


@pytest.fixture
def dockerd(root: None) -> Iterator[Dockerd]:
    """A dockerd that was not started yet."""
    if reason := Dockerd.missing():
        pytest.skip(reason)
    daemon = Dockerd("--bridge=none")
    try:
        yield daemon
    finally:
        daemon.destroy()


def silent(_: dict[str, Any]) -> None:
    """For progress nobody looks at."""


def test_dockerd_goes_on_with_our_images(dockerd: Dockerd, busybox_archive: Path) -> None:
    service = ImageService(dockerd.data_root, LayerStore(dockerd.data_root))
    with busybox_archive.open("rb") as archive:
        (id,) = service.load(archive, silent)
    names = {"CMD": '["cat", "/added"]', "LABEL": "a=b"}
    changes = [f"{key} {value}" for key, value in names.items()]
    service.import_(io.BytesIO(layer_archive(service, id)), "flat", config=apply_changes(Config(), changes))
    dockerd.start()
    docker = dockerd.docker
    assert docker.out("image", "inspect", "-f", "{{.Id}}", "busybox").strip() == id
    assert docker.out("image", "inspect", "-f", "{{.Config.Labels.a}}", "flat").strip() == "b"
    assert docker.out("run", "--network=none", "busybox", "echo", "hello").strip() == "hello"
    docker.out("save", "-o", str(dockerd.root / "saved.tar"), "busybox", "flat")  # checks every file's CRC


def test_we_go_on_with_what_dockerd_left(dockerd: Dockerd, busybox_archive: Path) -> None:
    dockerd.start()
    docker = dockerd.docker
    docker.out("load", "-q", "-i", str(busybox_archive))
    script = "echo 1 > /one; mkdir /d; echo x > /d/old"
    docker.out("run", "--network=none", "--name=first", "busybox", "sh", "-c", script)
    docker.out("commit", "first", "app:1")
    script = "rm /one; rm -r /d; mkdir /d; echo y > /d/new"
    docker.out("run", "--network=none", "--name=second", "app:1", "sh", "-c", script)
    docker.out("commit", "second", "app:2")
    theirs = json.loads(docker.out("inspect", "app:2"))[0]
    changed = docker.out("diff", "second").split("\n")
    container = docker.out("inspect", "-f", "{{.Id}}", "second").strip()
    saved = dockerd.root / "saved.tar"
    docker.out("save", "-o", str(saved), "app:1", "app:2")
    dockerd.stop()

    layers = LayerStore(dockerd.data_root)
    service = ImageService(dockerd.data_root, layers)
    assert layers.cleanup_orphans() == 0
    ours = service.inspect("app:2")
    for field in ("Id", "Parent", "Comment", "Created", "Size", "RepoTags", "DockerVersion", "Architecture"):
        assert getattr(ours, field) == theirs[field], field
    assert ours.Parent == service.resolve("app:1").id
    assert ours.GraphDriver.Data == theirs["GraphDriver"]["Data"]
    assert ours.Metadata.LastTagTime[:19] == theirs["Metadata"]["LastTagTime"][:19]
    rw = layers.get_rw_layer(container)
    assert {f"{'CAD'[change.kind]} {change.path}" for change in rw.changes()} == set(filter(None, changed))
    assert sorted(each.name for each in (rw.mount() / "d").iterdir()) == ["new"]
    rw.unmount()

    other = dockerd.root / "other"
    copy = ImageService(other, LayerStore(other))
    with saved.open("rb") as archive:
        copy.load(archive, silent)
    assert copy.resolve("app:2").id == ours.Id
    out, out_again = io.BytesIO(), io.BytesIO()
    service.save(["app:1", "app:2"], out.write)
    copy.save(["app:1", "app:2"], out_again.write)
    assert out.getvalue() == out_again.getvalue()


def test_what_we_save_dockerd_loads(dockerd: Dockerd, busybox_archive: Path, tmp_path: Path) -> None:
    service = ImageService(tmp_path, LayerStore(tmp_path))
    with busybox_archive.open("rb") as archive:
        (id,) = service.load(archive, silent)
    saved = tmp_path / "saved.tar"
    with saved.open("wb") as file:
        service.save(["busybox"], file.write)
    dockerd.start()
    dockerd.docker.out("load", "-i", str(saved))
    assert dockerd.docker.out("image", "inspect", "-f", "{{.Id}}", "busybox").strip() == id


def layer_archive(service: ImageService, id: str) -> bytes:
    """The image's top layer."""
    layer = service.images.layer(id)
    assert layer is not None
    return service.layers.tar_stream(layer).read()
