"""docker save: an archive that is Docker's own and an OCI image layout at once, as since Docker 25."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from typing import Any

import msgspec

from longshore.images.reference import Reference
from longshore.images.store import Image, ImageStore
from longshore.layers.layer import Layer
from longshore.layers.store import LayerStore
from longshore.types.timestamp import SECOND, parse_rfc3339

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"

Write = Callable[[bytes], object]
_CHUNK = 1 << 20


def save_images(
    selected: list[tuple[Image, list[Reference]]], images: ImageStore, layers: LayerStore, out: Write
) -> None:
    """Write the archive piece by piece; each layer once, bit for bit as it was registered."""
    archive = _Writer(out)
    written: dict[str, int] = {}
    docker: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    index: list[dict[str, Any]] = []
    archive.directory("blobs/")
    archive.directory("blobs/sha256/")
    for image, references in selected:
        created = parse_rfc3339(image.created) // SECOND
        chain = _chain(images.layer(image.id))
        for layer in chain:
            if layer.diff_id not in written:
                written[layer.diff_id] = archive.layer(layers, layer, created)
        archive.blob(image.raw, created, written)
        descriptors = [_descriptor(_LAYER, layer.diff_id, written[layer.diff_id]) for layer in chain]
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(_CONFIG, image.id, len(image.raw)),
                "layers": descriptors,
            }
        )
        digest = archive.blob(manifest, 0, written)
        index += _index_entries(_descriptor(_MANIFEST, digest, len(manifest)), references)
        docker.append(
            {
                "Config": _blob_path(image.id),
                "RepoTags": [each.familiar for each in references] or None,
                "Layers": [_blob_path(layer.diff_id) for layer in chain],
                "LayerSources": {each["digest"]: each for each in descriptors},
            }
        )
        for reference in references if chain else []:
            names = repositories.setdefault(reference.familiar_name, {})
            names[reference.tag] = chain[-1].diff_id[7:]
    archive.file("index.json", _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": index}))
    archive.file("manifest.json", _json(docker))
    archive.file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    if repositories:
        archive.file("repositories", _json(repositories))
    archive.end()


class _Writer:
    def __init__(self, out: Write) -> None:
        self._out = out

    def directory(self, name: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        self._out(info.tobuf(tarfile.USTAR_FORMAT))

    def file(self, name: str, content: bytes, mtime: int = 0) -> None:
        self._start(name, len(content), mtime)
        self._out(content + bytes(-len(content) % tarfile.BLOCKSIZE))

    def blob(self, content: bytes, mtime: int, written: dict[str, int]) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        if digest not in written:
            self.file(_blob_path(digest), content, mtime)
            written[digest] = len(content)
        return digest

    def layer(self, layers: LayerStore, layer: Layer, mtime: int) -> int:
        """Returns the archive's length, which must be known before its first byte is written."""
        size = layers.tar_size(layer)
        self._start(_blob_path(layer.diff_id), size, mtime)
        with layers.tar_stream(layer) as content:
            while chunk := content.read(_CHUNK):
                self._out(chunk)
        self._out(bytes(-size % tarfile.BLOCKSIZE))
        return size

    def end(self) -> None:
        self._out(bytes(2 * tarfile.BLOCKSIZE))

    def _start(self, name: str, size: int, mtime: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o644, max(mtime, 0)
        self._out(info.tobuf(tarfile.GNU_FORMAT))


def _index_entries(descriptor: dict[str, Any], references: list[Reference]) -> list[dict[str, Any]]:
    if not references:
        return [descriptor]
    return [
        descriptor
        | {
            "annotations": {
                "io.containerd.image.name": str(reference),
                "org.opencontainers.image.ref.name": reference.tag,
            }
        }
        for reference in references
    ]


def _chain(layer: Layer | None) -> list[Layer]:
    chain: list[Layer] = []
    while layer is not None:
        chain.append(layer)
        layer = layer.parent
    return chain[::-1]


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size}


def _blob_path(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
