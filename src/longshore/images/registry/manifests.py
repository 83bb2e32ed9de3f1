"""Manifests and indexes of images: Docker's schema 2 and the OCI's, which are alike."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from longshore.errors import NotFound
from longshore.images.registry.failures import Refused
from longshore.images.registry.platforms import Platform, rank
from longshore.layers.layerdb import DIGEST

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SCHEMA1 = tuple(f"application/vnd.docker.distribution.manifest.v1+{form}" for form in ("prettyjws", "json"))
ACCEPTED = (DOCKER_MANIFEST, DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST)

_ATTESTATION = "vnd.docker.reference.type"
_ACCEPTED_PREFIXES = ("application/vnd.oci.image.", "application/vnd.docker.")
_ACCEPTED_TYPES = ("application/octet-stream", "application/json", "text/html", "")
_MOST_LAYERS = 1000


class Descriptor(NamedTuple):
    """A blob or manifest to fetch. `size` in bytes."""

    digest: str
    size: int
    media_type: str


class Manifest(NamedTuple):
    """One image: its configuration and its layers, lowest first."""

    config: Descriptor
    layers: list[Descriptor]


class Index(NamedTuple):
    """Several images under one name: what each runs on, None if unsaid."""

    entries: list[tuple[Descriptor, Platform | None]]


def parse_manifest(content: bytes, media_type: str, name: str) -> Manifest | Index:
    """What the registry sent as a manifest of `name`. Raises Refused for anything that is no image."""
    try:
        document = msgspec.json.decode(content, type=dict[str, Any])
    except ValueError:
        raise Refused("unsupported manifest format, please see if there are any newer versions of Docker "
                      "that support it") from None  # fmt: skip
    kind = document.get("mediaType") or media_type
    if "manifests" in document and ("layers" in document or "config" in document):
        # What is an index to one reader and an image to another is neither (CVE-2021-41190).
        raise Refused("invalid manifest: it is both an image and a list of images")
    if media_type in ACCEPTED and kind != media_type:
        present = "if present, " if media_type.startswith("application/vnd.oci.") else ""
        raise Refused(f"{present}mediaType in manifest should be '{media_type}' not '{kind}'")
    if kind in (DOCKER_INDEX, OCI_INDEX) or (kind not in ACCEPTED and "manifests" in document):
        return Index([_entry(item) for item in _list(document, "manifests")])
    if document.get("schemaVersion") == 1 or media_type in SCHEMA1:
        raise Refused(
            "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 "
            "support is disabled by default and will be removed in an upcoming release. Suggest the author "
            f"of {name} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. "
            "More information at https://docs.docker.com/go/deprecated-image-specs/"
        )
    config = _descriptor(document.get("config"))
    if config.media_type.startswith("application/vnd.docker.plugin"):
        raise Refused(f'Encountered remote "{config.media_type}"(plugin) when fetching')
    layers = [_descriptor(item) for item in _list(document, "layers")]
    for each in (config, *layers):
        kind = each.media_type.lower()
        if not kind.startswith(_ACCEPTED_PREFIXES) and kind not in _ACCEPTED_TYPES:
            raise Refused(f"unsupported media type {each.media_type}")
    return Manifest(config, layers)


def select(index: Index, platform: Platform) -> Descriptor:
    """The image that runs best on the platform. Raises NotFound."""
    ranked: list[tuple[int, Descriptor]] = []
    for descriptor, offered in index.entries:
        fit = 0 if offered is None else rank(platform, offered)
        if fit is not None:
            ranked.append((fit, descriptor))
    if not ranked:
        raise NotFound(f"no matching manifest for {platform} in the manifest list entries")
    return min(ranked, key=lambda each: each[0])[1]


def docker_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """A schema 2 manifest, byte for byte as dockerd writes it (indented by three blanks)."""
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": _written(config),
        "layers": [_written(layer) for layer in layers],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=3)


def _written(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "size": descriptor.size,
        "digest": descriptor.digest,
    }


def _entry(item: Any) -> tuple[Descriptor, Platform | None]:
    descriptor = _descriptor(item)
    annotations = item.get("annotations")
    if isinstance(annotations, dict) and _ATTESTATION in annotations:
        return descriptor, Platform("unknown", "unknown")
    said = item.get("platform")
    if not isinstance(said, dict):
        return descriptor, None
    text = [said.get(key) for key in ("os", "architecture", "variant")]
    return descriptor, Platform(*(each if isinstance(each, str) else "" for each in text))


def _descriptor(item: Any) -> Descriptor:
    if not isinstance(item, dict):
        raise Refused("invalid manifest: a descriptor is missing")
    digest, size, media_type = item.get("digest"), item.get("size"), item.get("mediaType") or ""
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise Refused(f"invalid manifest: invalid digest {digest!r}")
    if not isinstance(size, int) or size < 0 or not isinstance(media_type, str):
        raise Refused("invalid manifest: malformed descriptor")
    return Descriptor(digest, size, media_type)


def _list(document: dict[str, Any], key: str) -> list[Any]:
    found = document.get(key) or []
    if not isinstance(found, list) or len(found) > _MOST_LAYERS:
        raise Refused(f"invalid manifest: malformed {key}")
    return found
