"""Layers that overlayfs wrote with redirect_dir and metacopy, of which a part is in the layers below."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from longshore.layers import overlay2
from longshore.layers.layer import Layer
from longshore.layers.store import LayerStore
from longshore.linux.mount import mountinfo

ON = ("index=off", "redirect_dir=on", "metacopy=on")
CHANGES = [
    *[("/big", 0), ("/d", 2), ("/linked", 0), ("/moved", 1), ("/moved/new", 1)],
    *[("/moved/old", 1), ("/moved/s", 1), ("/moved/s/deep", 1), ("/moved/s/owned", 1)],
    *[("/opaque", 0), ("/opaque/new", 1), ("/opaque/x", 2), ("/opaque/y", 0)],
]


@pytest.fixture
def store(tmp_path: Path, root: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[LayerStore]:
    """It mounts as on a kernel that has both on. Others that are opened are on this one, which has not."""
    if not Path("/sys/module/overlay/parameters/metacopy").exists():
        pytest.skip("this kernel's overlayfs has no metacopy")
    with monkeypatch.context() as kernel:
        kernel.setattr(overlay2, "kernel_defaults", lambda: ON)
        store = LayerStore(tmp_path, "overlay2")
    yield store
    store.cleanup_stale(set())
    assert not [point for point in mountinfo() if point.target.startswith(str(tmp_path))]


def base(store: LayerStore) -> Layer:
    """Two layers: what comes to be changed is in the lower one, and hidden in part by the upper."""
    lower = io.BytesIO()
    with tarfile.open(fileobj=lower, mode="w") as archive:
        for name in ("d", "d/s", "opaque"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for name in ("big", "linked", "d/old", "d/gone", "d/s/deep", "d/s/owned", "opaque/x", "opaque/y"):
            info = tarfile.TarInfo(name)
            info.size = 1_000_000 if name == "big" else 3
            archive.addfile(info, io.BytesIO(bytes(1_000_000) if name == "big" else b"old"))
        info = tarfile.TarInfo("linked2")
        info.type, info.linkname = tarfile.LNKTYPE, "linked"
        archive.addfile(info)
    upper = io.BytesIO()
    with tarfile.open(fileobj=upper, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("d/.wh.gone"))
    below = store.register(io.BytesIO(lower.getvalue()), None)
    return store.register(io.BytesIO(upper.getvalue()), below.chain_id)


def change(root: Path) -> None:
    """Rename a directory of the lower layers, change owners and modes there, hide all of another."""
    os.chown(root / "big", 5, 6)
    (root / "linked").chmod(0o600)
    (root / "d").rename(root / "moved")
    (root / "moved/new").write_text("new")
    os.chown(root / "moved/s/owned", 7, 7)
    for name in ("x", "y"):
        (root / "opaque" / name).unlink()
    (root / "opaque").rmdir()
    (root / "opaque").mkdir()
    (root / "opaque/y").write_text("y")
    (root / "opaque/new").write_text("n")


def check(root: Path) -> None:
    """Whether `change` was done to `root`, however it came about."""
    assert sorted(path.name for path in root.glob("moved/*")) == ["new", "old", "s"]
    assert not (root / "d").exists()
    assert (root / "moved/s/owned").read_text() == (root / "moved/old").read_text() == "old"
    assert (root / "moved/s/owned").stat().st_uid == 7
    big = (root / "big").stat()
    assert (big.st_uid, big.st_gid, big.st_size) == (5, 6, 1_000_000)
    assert stat.S_IMODE((root / "linked").stat().st_mode) == 0o600
    assert (root / "linked2").read_text() == "old"
    assert sorted(path.name for path in (root / "opaque").iterdir()) == ["new", "y"]


@pytest.mark.parametrize("running", [True, False])
def test_changes_and_archive_of_a_container(store: LayerStore, tmp_path: Path, running: bool) -> None:
    layer = base(store)
    rw = store.create_rw_layer("c", layer.chain_id)
    change(rw.mount())
    own = store.driver.own_files(rw.mount_id)
    assert os.getxattr(own / "moved", "trusted.overlay.redirect")
    assert os.getxattr(own / "big", "trusted.overlay.metacopy") is not None
    if not running:
        rw.unmount()
    for reader in (store, LayerStore(tmp_path)):  # the second one's kernel has them off
        seen = reader.get_rw_layer("c")
        assert [tuple(each) for each in seen.changes()] == CHANGES
        assert seen.size() == 1_000_000 + 3 + 4 * 3 + 2  # big, linked, what is in moved, what is in opaque
    assert ("Using metacopy", "true") in store.status()
    assert ("Native Overlay Diff", "false") in store.status()
    archive = store.get_rw_layer("c").tar_stream().read()
    assert rw.is_mounted() == running
    plain = LayerStore(tmp_path / "plain")
    below = base(plain)
    second = plain.register(io.BytesIO(archive), below.chain_id)
    again = plain.create_rw_layer("again", second.chain_id)
    check(again.mount())
    again.unmount()
    if running:
        rw.unmount()


def test_layers_committed_and_built(store: LayerStore, tmp_path: Path) -> None:
    layer = base(store)
    rw = store.create_rw_layer("c", layer.chain_id)
    change(rw.mount())
    rw.unmount()
    built = store.build(layer.chain_id, change)
    committed = store.commit(rw)
    for made in (built, committed):
        assert made is not None
        own = store.driver.own_files(made.cache_id)
        assert (own / "moved/old").read_text() == "old"
        assert not os.listxattr(own / "big")
        for reader in (store, LayerStore(tmp_path)):
            archive = reader.tar_stream(made).read()
            assert len(archive) == reader.tar_size(made)
        with store.view(made.chain_id) as root:
            check(root)


def test_layers_that_another_engine_has_sealed_as_they_were(store: LayerStore, tmp_path: Path) -> None:
    """BuildKit, in dockerd, makes layers of the very directories that its containers wrote."""
    layer = base(store)
    plain = store.build(layer.chain_id, change)
    assert plain is not None
    archive = store.tar_stream(plain).read()
    rw = store.create_rw_layer("c", layer.chain_id)
    change(rw.mount())
    rw.unmount()
    theirs, ours = store.driver.own_files(rw.mount_id), store.driver.own_files(plain.cache_id)
    ours.rename(tmp_path / "aside")
    theirs.rename(ours)
    for reader in (store, LayerStore(tmp_path)):
        # Times are not those of the other directory, but no content may be missing.
        assert len(reader.tar_stream(plain).read()) == len(archive)
    with store.view(plain.chain_id) as root:
        check(root)
    above = store.create_rw_layer("above", plain.chain_id)
    mounted = above.mount()
    (mounted / "moved/s/more").write_text("1")
    (mounted / "opaque/y").unlink()
    above.unmount()
    assert [tuple(each) for each in above.changes()] == [
        *[("/moved", 0), ("/moved/s", 0), ("/moved/s/more", 1), ("/opaque", 0), ("/opaque/y", 2)],
    ]
