"""Reading archives of images: `docker save`'s, OCI layouts, and archives that are both.

The archive is never unpacked: it is spooled, plain, into an unnamed file, and layers are registered straight
out of that. So nothing in it can name a path on the host.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any, BinaryIO, NamedTuple

import msgspec

from longshore.errors import InvalidParameter, NotFound
from longshore.images.progress import Progress, ProgressCallback
from longshore.images.reference import Reference, parse
from longshore.images.store import Image, ImageStore
from longshore.layers.compression import decompressed
from longshore.layers.layer import chain_id
from longshore.layers.layerdb import DIGEST
from longshore.layers.store import LayerStore

_LONGEST_DOCUMENT = 32 << 20
_MOST_MEMBERS = 100_000
_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


class Platform(NamedTuple):
    """What an image runs on; "" matches anything."""

    os: str = ""
    architecture: str = ""
    variant: str = ""


class ArchivedImage(NamedTuple):
    """An image in an archive: its configuration, and the members that are its layers, lowest first."""

    config: bytes
    layers: list[str]
    references: list[Reference]


class Loaded(NamedTuple):
    """An image that is now in the store."""

    id: str
    references: list[Reference]


def load_images(
    stream: BinaryIO,
    layers: LayerStore,
    images: ImageStore,
    spool_directory: Path,
    *,
    progress: ProgressCallback,
    platform: Platform,
) -> list[Loaded]:
    """Register all images of the archive; names are left to the caller.

    All or nothing: on failure no image or layer of this archive stays that was not there before. Raises
    InvalidParameter for anything wrong with the archive.
    """
    with ExitStack() as stack:
        spool_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        spool = stack.enter_context(tempfile.TemporaryFile(dir=spool_directory))
        read = decompressed(stream)
        while chunk := read():
            spool.write(chunk)
        archive = _Archive(spool)
        loaded = []
        with ExitStack() as undo:
            for archived in archive.images(platform):
                image = Image(archived.config)
                existed = images.has(image.id)
                _register_layers(archive, archived, image, layers, progress=progress, references=stack)
                images.create(archived.config)
                if not existed:
                    undo.callback(images.delete, image.id)
                loaded.append(Loaded(image.id, archived.references))
            undo.pop_all()
        return loaded


def _register_layers(
    archive: _Archive,
    archived: ArchivedImage,
    image: Image,
    layers: LayerStore,
    *,
    progress: ProgressCallback,
    references: ExitStack,
) -> None:
    """Make sure all layers are there; `references` gives back what is held of them."""
    if image.os != "linux":
        raise InvalidParameter(f"cannot load {image.os} image on linux")
    expected, got = len(image.diff_ids), len(archived.layers)
    if expected != got:
        raise InvalidParameter(f"invalid manifest, layers length mismatch: expected {expected}, got {got}")
    parent: str | None = None
    for diff_id, member in zip(image.diff_ids, archived.layers, strict=True):
        chain = chain_id([parent, diff_id] if parent else [diff_id])
        try:
            layer = layers.get(chain)
        except NotFound:
            with archive.open(member) as content:
                reporter = Progress(progress, diff_id[7:19], "Loading layer", content.size)
                layer = layers.register(reporter.watch(content), parent, diff_id)
                reporter.done()
        references.callback(layers.release, layer)
        parent = chain


class _Archive:
    """Members of a tar file by name, links resolved within the archive."""

    def __init__(self, spool: BinaryIO) -> None:
        self._spool = spool
        self._size = spool.seek(0, io.SEEK_END)
        self._members: dict[str, tarfile.TarInfo] = {}
        spool.seek(0)
        try:
            with tarfile.open(fileobj=spool, mode="r:") as archive:
                for member in archive:
                    if member.offset_data + member.size > self._size:
                        raise InvalidParameter("unexpected EOF")
                    self._members[normpath(member.name.lstrip("/"))] = member
                    if len(self._members) > _MOST_MEMBERS:
                        raise InvalidParameter("archive holds too many files")
        except tarfile.TarError as exc:
            raise InvalidParameter(f"Error processing tar file: {exc}") from None

    def images(self, platform: Platform) -> list[ArchivedImage]:
        """All images, by manifest.json if there is one, else by the OCI layout's index."""
        if "manifest.json" in self._members:
            return self._docker_images(platform)
        if "index.json" in self._members:
            return self._oci_images(platform)
        raise InvalidParameter("invalid archive: does not contain a manifest.json")

    def open(self, name: str) -> _Member:
        """The content of a member. Raises InvalidParameter if it is missing or no file."""
        at = normpath(name)
        for _ in range(8):
            member = self._members.get(at)
            if member is None:
                break
            if member.isreg() and member.sparse is None:
                return _Member(self._spool, member.offset_data, member.size)
            if not member.issym() and not member.islnk():
                break
            # Old archives link layers that images share: ../<id>/layer.tar
            at = normpath(join(dirname(at), member.linkname) if member.issym() else member.linkname)
        raise InvalidParameter(f"invalid archive: {name}: no such file or directory")

    def _docker_images(self, platform: Platform) -> list[ArchivedImage]:
        found = []
        for item in _as_list(self._document("manifest.json")):
            config = self._read(_as_text(item.get("Config")))
            if not _matches(msgspec.json.decode(config), platform):
                continue
            references = []
            for tag in item.get("RepoTags") or []:
                reference = parse(_as_text(tag))
                if not reference.tag:
                    raise InvalidParameter(f"invalid tag {tag!r}")
                references.append(reference)
            names = [_as_text(layer) for layer in item.get("Layers") or []]
            found.append(ArchivedImage(config, names, references))
        return _one_at_least(found, platform)

    def _oci_images(self, platform: Platform) -> list[ArchivedImage]:
        found = []
        for descriptor in _as_list(self._document("index.json").get("manifests")):
            annotations = descriptor.get("annotations") or {}
            name = annotations.get("io.containerd.image.name") or annotations.get(
                "org.opencontainers.image.ref.name"
            )
            references = []
            # The second annotation may be a bare tag, which names no image.
            if name and ("/" in name or ":" in name):
                references.append(parse(name).tagged)
            archived = self._oci_image(descriptor, platform, references, 0)
            if archived is not None:
                found.append(archived)
        return _one_at_least(found, platform)

    def _oci_image(
        self, descriptor: dict[str, Any], platform: Platform, references: list[Reference], depth: int
    ) -> ArchivedImage | None:
        document = msgspec.json.decode(self._blob(descriptor))
        kind = descriptor.get("mediaType") or document.get("mediaType")
        if kind in _INDEX_TYPES and depth < 4:
            for below in _as_list(document.get("manifests")):
                if _runs_nowhere(below) or not _matches(below.get("platform") or {}, platform):
                    continue
                if self._blob_name(below) not in self._members:
                    continue  # archives may carry just one of the platforms
                archived = self._oci_image(below, platform, references, depth + 1)
                if archived is not None:
                    return archived
            return None
        if kind not in _MANIFEST_TYPES:
            return None
        config = self._blob(document.get("config") or {})
        if not _matches(msgspec.json.decode(config), platform):
            return None
        layers = [self._blob_name(layer) for layer in _as_list(document.get("layers"))]
        return ArchivedImage(config, layers, references)

    def _blob(self, descriptor: dict[str, Any]) -> bytes:
        content = self._read(self._blob_name(descriptor))
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        if digest != descriptor["digest"]:
            raise InvalidParameter(f"blob {descriptor['digest']} has digest {digest}")
        return content

    def _blob_name(self, descriptor: dict[str, Any]) -> str:
        digest = descriptor.get("digest")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise InvalidParameter(f"invalid archive: invalid digest {digest!r}")
        return f"blobs/sha256/{digest[7:]}"

    def _document(self, name: str) -> Any:
        try:
            return msgspec.json.decode(self._read(name))
        except msgspec.DecodeError as exc:
            raise InvalidParameter(f"invalid archive: {name}: {exc}") from None

    def _read(self, name: str) -> bytes:
        with self.open(name) as member:
            if member.size > _LONGEST_DOCUMENT:
                raise InvalidParameter(f"invalid archive: {name} is too large")
            return member.read()


class _Member(io.RawIOBase):
    """A window on the spool; each has its own position."""

    def __init__(self, spool: BinaryIO, offset: int, size: int) -> None:
        super().__init__()
        self._spool = spool
        self._at = offset
        self._end = offset + size
        self.size = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._spool.seek(self._at)
        data = self._spool.read(min(len(buffer), self._end - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _matches(described: Any, platform: Platform) -> bool:
    if not isinstance(described, dict):
        raise InvalidParameter("invalid archive: not an image configuration")
    return (
        platform.os in ("", described.get("os"))
        and platform.architecture in ("", described.get("architecture"))
        and platform.variant in ("", described.get("variant") or "")
    )


def _runs_nowhere(descriptor: dict[str, Any]) -> bool:
    """Attestations stand in indexes beside the images they are about."""
    return (descriptor.get("annotations") or {}).get("vnd.docker.reference.type") is not None or (
        descriptor.get("platform") or {}
    ).get("os") == "unknown"


def _one_at_least(found: list[ArchivedImage], platform: Platform) -> list[ArchivedImage]:
    if not found:
        wanted = "/".join(part for part in platform if part)
        raise InvalidParameter(
            f"no image found in the archive for platform {wanted}" if wanted else "no image in the archive"
        )
    return found


def _as_list(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidParameter("invalid archive: malformed manifest")
    return value


def _as_text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidParameter("invalid archive: malformed manifest")
    return value
