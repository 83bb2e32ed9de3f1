"""Image configurations by id: `image/<driver>/imagedb`, byte for byte as they came."""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path
from typing import Any

import msgspec

from longshore.errors import InvalidParameter, NotFound
from longshore.layers.layer import Layer, chain_id
from longshore.layers.layerdb import DIGEST
from longshore.layers.store import LayerStore
from longshore.linux.files import remove_temporaries, sync_directory, write_atomically
from longshore.types.timestamp import ZERO_TIME, now

_BUILT_HERE = "builtLocally"
"""Name of the file that dockerd, too, marks images with that a build made."""


class Image:
    """An image as its configuration describes it; `raw` is the very text its id is the digest of."""

    def __init__(self, raw: bytes) -> None:
        """Raises InvalidParameter if `raw` is no image configuration."""
        self.raw = raw
        self.id = "sha256:" + hashlib.sha256(raw).hexdigest()
        try:
            described = msgspec.json.decode(raw)
        except msgspec.DecodeError as exc:
            raise InvalidParameter(f"invalid image JSON: {exc}") from None
        rootfs = described.get("rootfs") if isinstance(described, dict) else None
        if not isinstance(rootfs, dict):
            raise InvalidParameter("invalid image JSON, no RootFS key")
        self.described: dict[str, Any] = described
        self.diff_ids: list[str] = rootfs.get("diff_ids") or []
        if not all(isinstance(each, str) and DIGEST.fullmatch(each) for each in self.diff_ids):
            raise InvalidParameter("invalid image JSON: diff_ids are not sha256 digests")
        if sum(not item.get("empty_layer") for item in self.history) > len(self.diff_ids):
            raise InvalidParameter("too many non-empty layers in History section")
        self.chain_id = chain_id(self.diff_ids)
        """Of all layers; "" if there are none."""

    @property
    def config(self) -> dict[str, Any]:
        """The container's part, by the API's names: Env, Cmd, Entrypoint …"""
        return self.described.get("config") or {}

    @property
    def os(self) -> str:
        return self.described.get("os") or "linux"

    @property
    def architecture(self) -> str:
        return self.described.get("architecture") or ""

    @property
    def variant(self) -> str:
        return self.described.get("variant") or ""

    @property
    def history(self) -> list[dict[str, Any]]:
        """Steps, oldest first: created, created_by, comment, empty_layer."""
        return self.described.get("history") or []

    @property
    def created(self) -> str:
        """RFC 3339, "" if unknown."""
        return self.described.get("created") or ""

    @property
    def labels(self) -> dict[str, str]:
        return self.config.get("Labels") or {}


class ImageStore:
    """Each image holds a reference to its layers. Every method may be called in threads."""

    def __init__(self, root: Path, layers: LayerStore) -> None:
        """`root` is the data root."""
        base = root / "image" / layers.driver_name / "imagedb"
        self._content = base / "content" / "sha256"
        self._metadata = base / "metadata" / "sha256"
        self._layer_store = layers
        self._lock = threading.RLock()
        self._images: dict[str, Image] = {}
        self._layers: dict[str, Layer | None] = {}
        self._parents: dict[str, str] = {}
        self._built: set[str] = set()
        for directory in (self._content, self._metadata):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_temporaries(self._content)
        self._load()

    def create(self, config_json: bytes) -> str:
        """Add an image whose layers are there; returns its id. Harmless if it exists.

        Raises InvalidParameter for a bad configuration, NotFound for missing layers.
        """
        image = Image(config_json)
        with self._lock:
            if image.id in self._images:
                return image.id
            layer = self._layer_store.get(image.chain_id) if image.chain_id else None
            try:
                write_atomically(self._content / image.id[7:], config_json)
                sync_directory(self._content)
            except BaseException:
                if layer is not None:
                    self._layer_store.release(layer)
                raise
            self._images[image.id] = image
            self._layers[image.id] = layer
            if layer is not None:
                self._layer_store.settle(layer)
            return image.id

    def get(self, id: str) -> Image:
        """Raises NotFound."""
        image = self._images.get(id)
        if image is None:
            raise NotFound(f"No such image: {id}")
        return image

    def has(self, id: str) -> bool:
        """Whether there is such an image."""
        return id in self._images

    def all(self) -> list[Image]:
        """Every image, in no order."""
        with self._lock:
            return list(self._images.values())

    def search(self, prefix: str) -> list[str]:
        """Ids that begin with `prefix`, which may or may not begin with `sha256:`."""
        wanted = prefix if prefix.startswith("sha256:") else f"sha256:{prefix}"
        if wanted in self._images:
            return [wanted]
        with self._lock:
            return [id for id in self._images if id.startswith(wanted)] if len(wanted) > 7 else []

    def delete(self, id: str) -> list[Layer]:
        """Delete the image, and layers that nothing else needs; returns those, topmost first."""
        with self._lock:
            self.get(id)
            for child in self.children(id):
                self._set_parent(child, "")
            del self._images[id]
            self._parents.pop(id, None)
            self._built.discard(id)
            layer = self._layers.pop(id)
            if layer is not None:
                self._layer_store.loosen(layer)
            (self._content / id[7:]).unlink(missing_ok=True)
            shutil.rmtree(self._metadata / id[7:], ignore_errors=True)
        return self._layer_store.release(layer) if layer is not None else []

    def layer(self, id: str) -> Layer | None:
        """The topmost layer, not counted; None for an image without layers."""
        return self._layers.get(id)

    def parent(self, id: str) -> str:
        """Id of the image it was built from here, "" if none."""
        return self._parents.get(id, "")

    def set_parent(self, id: str, parent: str) -> None:
        """Record what the image was built from. Raises NotFound if either does not exist."""
        with self._lock:
            self.get(id)
            self.get(parent)
            self._set_parent(id, parent)

    def set_built_here(self, id: str, parent: str) -> None:
        """Record that a step of a build made the image of `parent` ("" for nothing). Raises NotFound."""
        with self._lock:
            self.get(id)
            directory = self._metadata / id[7:]
            directory.mkdir(mode=0o700, exist_ok=True)
            # Not synced: all that a power cut could take is the knowledge of a step for the build cache.
            if parent:
                self.get(parent)
                write_atomically(directory / "parent", parent.encode(), durable=False)
                self._parents[id] = parent
            write_atomically(directory / _BUILT_HERE, b"1", durable=False)
            self._built.add(id)

    def is_built_here(self, id: str) -> bool:
        """Whether a build made it: what was loaded or pulled may claim anything about its steps."""
        return id in self._built

    def without_parent(self) -> list[str]:
        """Images that were built here of nothing."""
        with self._lock:
            return [id for id in self._built if id not in self._parents]

    def children(self, id: str) -> list[str]:
        """Images built from it here."""
        with self._lock:
            return [child for child, parent in self._parents.items() if parent == id]

    def touch(self, id: str) -> None:
        """Record that the image was tagged now."""
        self._write(id, "lastUpdated", now())

    def last_updated(self, id: str) -> str:
        """When it was last tagged, RFC 3339; Go's zero time if never."""
        try:
            return (self._metadata / id[7:] / "lastUpdated").read_text()
        except FileNotFoundError:
            return ZERO_TIME

    def _set_parent(self, id: str, parent: str) -> None:
        if parent:
            self._write(id, "parent", parent)
            self._parents[id] = parent
        else:
            (self._metadata / id[7:] / "parent").unlink(missing_ok=True)
            self._parents.pop(id, None)

    def _write(self, id: str, name: str, text: str) -> None:
        directory = self._metadata / id[7:]
        directory.mkdir(mode=0o700, exist_ok=True)
        write_atomically(directory / name, text.encode())
        sync_directory(directory)

    def _load(self) -> None:
        for (
            leftover
        ) in self._metadata.iterdir():  # of an image that was being deleted when a daemon was killed
            if DIGEST.fullmatch(f"sha256:{leftover.name}") and not (self._content / leftover.name).exists():
                shutil.rmtree(leftover, ignore_errors=True)
        for name in [entry.name for entry in self._content.iterdir()]:
            if not DIGEST.fullmatch(f"sha256:{name}"):
                continue
            try:
                image = Image((self._content / name).read_bytes())
                if image.id != f"sha256:{name}":
                    continue  # damaged; left for whoever wants to look at it
                layer = self._layer_store.get(image.chain_id) if image.chain_id else None
            except (InvalidParameter, NotFound):
                continue
            self._images[image.id] = image
            self._layers[image.id] = layer
            parent = self._metadata / name / "parent"
            if parent.exists():
                self._parents[image.id] = parent.read_text().strip()
            if (self._metadata / name / _BUILT_HERE).exists():
                self._built.add(image.id)
        for id, parent_id in list(self._parents.items()):
            if parent_id not in self._images:
                del self._parents[id]
