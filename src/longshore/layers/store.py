"""The layer store: read-only layers in chains, and the writable layers of containers on top."""

from __future__ import annotations

import io
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from longshore.errors import Conflict, InvalidParameter, NotFound
from longshore.layers.difftar import ChunkReader, diff_tar
from longshore.layers.driver import GraphDriver, open_driver
from longshore.layers.idmap import IdMap, IdRange
from longshore.layers.initlayer import setup_init_layer
from longshore.layers.layer import Layer, chain_id
from longshore.layers.layerdb import NAME, LayerDb, LayerRecord, MountRecord
from longshore.layers.rwlayer import RWLayer
from longshore.layers.sealing import can_be_sealed, seal
from longshore.layers.tarsplit import archive_size, assemble
from longshore.layers.unpack import Unpacked, unpack

MAX_DEPTH = 125
"""Layers in a chain; two places of overlayfs's 128 are for the container, as in Docker."""

_CHUNK = 1 << 20

_OUR_ID = re.compile(r"[0-9a-f]{64}(-init)?(-removing)?")


class LayerStore:
    """Synchronous; every method may be called in threads."""

    def __init__(
        self,
        root: Path,
        driver: str | None = None,
        uid_map: list[IdRange] | None = None,
        gid_map: list[IdRange] | None = None,
        storage_options: list[str] | None = None,
    ) -> None:
        """Open the store below the data root; `driver` None or "" chooses one. Raises System."""
        self.ids = IdMap(uid_map, gid_map)
        self.driver: GraphDriver = open_driver(root, driver or "", self.ids, storage_options or [])
        self.driver_name = self.driver.name
        self._db = LayerDb(root / "image" / self.driver_name / "layerdb")
        self._lock = threading.RLock()
        self._layers: dict[str, Layer] = {}
        self._rw: dict[str, RWLayer] = {}
        self._unpacking: set[str] = set()
        self._load()

    def status(self) -> list[tuple[str, str]]:
        """`DriverStatus` of docker info."""
        return self.driver.status()

    def register(self, tar: BinaryIO, parent: str | None, expected_diff_id: str | None = None) -> Layer:
        """Add a layer from its archive, plain or compressed, and return a reference to it.

        `parent` is a chain id. If the layer exists already, the archive is still read and verified. Raises
        InvalidParameter for an archive that is damaged, hostile, or not what `expected_diff_id` says;
        NotFound for an unknown parent. Nothing is left behind on failure.
        """
        with self._new_layer(parent) as (undo, record_directory, below, cache_id):
            with (record_directory / "tar-split.json.gz").open("wb") as tar_split:
                unpacked = unpack(tar, self.driver.extractor(cache_id), tar_split)
            if expected_diff_id is not None and unpacked.diff_id != expected_diff_id:
                raise InvalidParameter(
                    f'invalid diffID for layer: expected "{expected_diff_id}", got "{unpacked.diff_id}"'
                )
            return self._commit(undo, record_directory, unpacked, below, cache_id)

    def build(self, parent: str | None, fill: Callable[[Path], None]) -> Layer | None:
        """Add a layer of what `fill` writes into the file system of the chain `parent`, as `register` does.

        None if it changed nothing. Raises NotFound, InvalidParameter, and whatever `fill` does.
        """
        return self._seal(parent, lambda id: self.driver.populate(id, fill))

    def commit(self, rw: RWLayer) -> Layer | None:
        """Add a layer of what a container wrote, whose own layer is empty, or as good as, afterwards.

        None if it changed nothing. The container must not run.
        """

        def take(id: str) -> None:
            if not self.driver.take_over(id, rw.mount_id):
                with rw.tar_stream() as changes:
                    unpack(changes, self.driver.extractor(id), io.BytesIO())

        return self._seal(rw.parent, take)

    @contextmanager
    def view(self, chain_id: str | None) -> Iterator[Path]:
        """The file system of a chain, mounted for a while; what is written to it goes with it.

        Raises NotFound.
        """
        with ExitStack() as held:
            below = self.get(chain_id) if chain_id is not None else None
            if below is not None:
                held.callback(self.release, below)
            id = self._reserve_id()
            held.callback(self._unpacking.discard, id)
            held.callback(self.driver.remove, id)
            self.driver.create(id, below.cache_id if below else None)
            path = self.driver.get(id)
            held.callback(self.driver.put, id)
            yield path

    def get(self, chain_id: str) -> Layer:
        """A counted reference to the layer; give it back with `release`. Raises NotFound."""
        with self._lock:
            layer = self._layers.get(chain_id)
            if layer is None:
                raise NotFound("layer does not exist")
            return self._retain(layer)

    def find(self, chain_id: str) -> Layer | None:
        """The layer, not counted."""
        return self._layers.get(chain_id)

    def layers(self) -> list[Layer]:
        """All layers, not counted."""
        with self._lock:
            return list(self._layers.values())

    def release(self, layer: Layer) -> list[Layer]:
        """Give a reference back. Layers nobody needs any more are deleted and returned, topmost first."""
        doomed: list[tuple[Layer, Path]] = []
        with self._lock:
            current: Layer | None = layer
            while current is not None:
                current.references -= 1
                if current.references > 0:
                    break
                del self._layers[current.chain_id]
                doomed.append((current, self._db.retire_layer(current.chain_id)))
                current = current.parent
        for dead, record in doomed:
            self.driver.remove(dead.cache_id)
            shutil.rmtree(record, ignore_errors=True)
            self._db.settle(dead.chain_id)
        return [dead for dead, _ in doomed]

    def loosen(self, layer: Layer) -> None:
        """Whatever outlives this process and refers to the layer is about to go, or not there yet."""
        self._db.loosen(layer.chain_ids)

    def settle(self, layer: Layer) -> None:
        """Something that outlives this process refers to the layer."""
        self._db.settle(*layer.chain_ids)

    def release_loose(self) -> None:
        """Delete loose layers that a killed daemon left. Call it once images have what they need."""
        for chain in self._db.loose():
            for id in chain:
                if (layer := self.find(id)) is not None and layer.references == 0:
                    self.release(self.get(id))
            self._db.settle(chain[0])

    def tar_stream(self, layer: Layer) -> BinaryIO:
        """The layer's archive, uncompressed, bit for bit as it was registered."""
        return ChunkReader(self._archive(layer))

    def tar_size(self, layer: Layer) -> int:
        """Length of that archive in bytes."""
        return archive_size(self._db.tar_split(layer.chain_id))

    def create_rw_layer(
        self,
        name: str,
        parent: str | None,
        *,
        mount_label: str = "",
        init: Callable[[Path], None] | None = None,
        storage_opt: dict[str, str] | None = None,
    ) -> RWLayer:
        """A writable layer for the container `name` on top of the chain `parent`.

        `init` fills the init layer; by default with Docker's mount points. Raises Conflict if the name is
        taken, NotFound for an unknown parent.
        """
        if not NAME.fullmatch(name):
            raise InvalidParameter(f"invalid layer name: {name}")
        fill = init or (lambda root: setup_init_layer(root, self.ids))
        with ExitStack() as undo:
            below = self.get(parent) if parent is not None else None
            if below is not None:
                undo.callback(self.release, below)
            mount_id = self._reserve_id()
            undo.callback(self._unpacking.discard, mount_id)
            init_id = f"{mount_id}-init"
            undo.callback(self.driver.remove, init_id)
            self.driver.create(init_id, below.cache_id if below else None)
            self.driver.populate(init_id, fill)
            undo.callback(self.driver.remove, mount_id)
            self.driver.create(mount_id, init_id, storage_opt)
            record = MountRecord(name, mount_id, init_id, parent)
            with self._lock:
                if name in self._rw:
                    raise Conflict("mount name already exists")
                rw = self._rw[name] = RWLayer(record, None, self.driver, self.ids)
            undo.callback(self._rw.pop, name)
            undo.callback(self._db.remove_mount, name)
            self._db.add_mount(record)  # It waits for the disk; others need not.
            self._unpacking.discard(mount_id)
            undo.pop_all()
            return rw

    def get_rw_layer(self, name: str) -> RWLayer:
        """The container's layer. Raises NotFound."""
        rw = self._rw.get(name)
        if rw is None:
            raise NotFound(f"RW layer does not exist: {name}")
        return rw

    def rw_layers(self) -> list[RWLayer]:
        """All writable layers."""
        with self._lock:
            return list(self._rw.values())

    def release_rw_layer(self, rw: RWLayer) -> list[Layer]:
        """Unmount and remove the layer, whatever of it exists; returns layers that went away with it."""
        with self._lock:
            if self._rw.get(rw.name) is not rw:
                return []
        self.driver.remove(rw.mount_id)
        if rw.init_id:
            self.driver.remove(rw.init_id)
        with self._lock:
            # The record goes last: until then a crash leaves something to call this for again.
            if self._rw.pop(rw.name, None) is None:
                return []
            self._db.remove_mount(rw.name)
            parent = self._layers.get(rw.parent) if rw.parent else None
        return self.release(parent) if parent is not None else []

    def mounted(self) -> list[str]:
        """Names of the containers whose layer is mounted, by this daemon or one before it."""
        ids = self.driver.mounted()
        return [rw.name for rw in self.rw_layers() if rw.mount_id in ids]

    def cleanup_stale(self, active: set[str]) -> list[str]:
        """Unmount the layers of all containers but those named in `active`; returns their names."""
        ids = self.driver.mounted()
        stale = [rw for rw in self.rw_layers() if rw.mount_id in ids and rw.name not in active]
        for rw in stale:
            self.driver.unmount(rw.mount_id)
        return [rw.name for rw in stale]

    def cleanup_orphans(self) -> int:
        """Remove what cut-off operations left behind; returns how many layers. Call it at start."""
        removed = 0
        with self._lock:
            self._db.cleanup_tmp()
            for record, cache_id in self._db.retired_layers():
                if cache_id:
                    self.driver.remove(cache_id)
                shutil.rmtree(record, ignore_errors=True)
                removed += 1
            for name in self._db.incomplete_mounts():
                self._db.remove_mount(name)
            known = {layer.cache_id for layer in self._layers.values()} | self._unpacking
            for rw in self._rw.values():
                known |= {rw.mount_id, rw.init_id}
            for id in self.driver.ids() - known:
                # Other names are not made by a layer store: BuildKit, in dockerd, keeps its own here.
                if _OUR_ID.fullmatch(id) and id.removesuffix("-init") not in self._unpacking:
                    self.driver.remove(id)
                    removed += 1
        return removed

    @contextmanager
    def _new_layer(self, parent: str | None) -> Iterator[tuple[ExitStack, Path, Layer | None, str]]:
        """The undo, the record's directory, the layer below and the driver's id of a layer in the making."""
        below = self.get(parent) if parent is not None else None
        with ExitStack() as undo, self._db.new_layer() as record_directory:
            if below is not None:
                undo.callback(self.release, below)
                if below.depth >= MAX_DEPTH:
                    raise InvalidParameter("max depth exceeded")
            cache_id = self._reserve_id()
            undo.callback(self._unpacking.discard, cache_id)
            undo.callback(self.driver.remove, cache_id)
            self.driver.create(cache_id, below.cache_id if below else None)
            yield undo, record_directory, below, cache_id

    def _seal(self, parent: str | None, fill: Callable[[str], None]) -> Layer | None:
        with self._new_layer(parent) as (undo, record_directory, below, cache_id):
            fill(cache_id)
            with self.driver.diff(cache_id, below.cache_id if below else None) as (root, changes):
                if not changes:
                    return None
                # Not, if a part of it is in the layers below.
                if root != self.driver.own_files(cache_id) or not can_be_sealed(changes):
                    archive = io.BufferedReader(ChunkReader(diff_tar(root, changes, self.ids)), _CHUNK)
                    return self.register(cast(BinaryIO, archive), parent)
                with (record_directory / "tar-split.json.gz").open("wb") as tar_split:
                    sealed = seal(root, changes, self.ids, tar_split)
            return self._commit(undo, record_directory, sealed, below, cache_id)

    def _archive(self, layer: Layer) -> Iterator[bytes]:
        with ExitStack() as views:

            def merged() -> Path:
                return views.enter_context(self.driver.view(layer.cache_id))

            own_files = self.driver.own_files(layer.cache_id)
            yield from assemble(self._db.tar_split(layer.chain_id), own_files, merged)

    def _commit(
        self, undo: ExitStack, record_directory: Path, made: Unpacked, below: Layer | None, cache_id: str
    ) -> Layer:
        """Make a finished layer known, unless it is already. `undo` is emptied if it is new."""
        parent = below.chain_id if below is not None else None
        chain = chain_id([parent, made.diff_id] if parent else [made.diff_id])
        record = LayerRecord(chain, made.diff_id, parent, cache_id, made.size)
        with self._lock:
            if chain in self._layers:
                return self._retain(self._layers[chain])
        self._db.write_layer(record_directory, record)  # It waits for the disk; others need not.
        with self._lock:
            if chain in self._layers:
                return self._retain(self._layers[chain])
            layer = Layer(chain, made.diff_id, below, cache_id, made.size, 1)
            self.loosen(layer)
            self._db.commit_layer(record_directory, record)
            self._layers[chain] = layer
            self._unpacking.discard(cache_id)
            undo.pop_all()
            return layer

    def _load(self) -> None:
        records = {record.chain_id: record for record in self._db.layers()}
        present = self.driver.ids()
        for chain in records:
            pending: list[LayerRecord] = []
            walk: str | None = chain
            while walk is not None and walk not in self._layers:
                record = records.get(walk)
                if record is None or record.cache_id not in present:
                    pending.clear()
                    break
                pending.append(record)
                walk = record.parent
            for record in reversed(pending):
                below = self._layers[record.parent] if record.parent else None
                if below is not None:
                    below.references += 1
                self._layers[record.chain_id] = Layer(
                    record.chain_id, record.diff_id, below, record.cache_id, record.size
                )
        for mount in self._db.mounts():
            parent = self._layers.get(mount.parent) if mount.parent else None
            if parent is not None:
                parent.references += 1
            cache_id = parent.cache_id if parent else None
            self._rw[mount.name] = RWLayer(mount, cache_id, self.driver, self.ids)

    def _reserve_id(self) -> str:
        id = secrets.token_hex(32)
        self._unpacking.add(id)
        return id

    def _retain(self, layer: Layer) -> Layer:
        layer.references += 1
        return layer
