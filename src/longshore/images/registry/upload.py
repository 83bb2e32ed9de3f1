"""Bringing one layer to a repository: it is there, or can be mounted from another, or is compressed and sent.

Blocking; use it in threads.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from longshore.errors import EngineError
from longshore.images.progress import Progress, ProgressCallback
from longshore.images.reference import Reference
from longshore.images.registry.client import RepositoryClient
from longshore.images.registry.download import count_down, delay_before
from longshore.images.registry.endpoints import RegistrySettings
from longshore.images.registry.failures import may_try_again
from longshore.images.registry.manifests import DOCKER_LAYER, Descriptor
from longshore.images.registry.metadata import BlobSource, DistributionMetadata, source_of
from longshore.images.registry.transport import UPLOAD_BLOCK, Cancellation
from longshore.layers.layer import Layer
from longshore.layers.store import LayerStore
from longshore.types.registry import AuthConfig

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_SMALL = 1 << 20
"""Compressed layers up to this size go in one request."""
_MOST_CHECKS = 4
_MOST_MOUNTS = 4


class UploadContext(NamedTuple):
    """What the uploads of one push share."""

    reference: Reference
    auth: AuthConfig
    layers: LayerStore
    metadata: DistributionMetadata
    settings: RegistrySettings
    emit: ProgressCallback


def upload_layer(
    context: UploadContext, layer: Layer, client: RepositoryClient, cancellation: Cancellation
) -> Descriptor:
    """Have the layer in the repository; the blob that it is there."""
    known = context.metadata.sources(layer.diff_id)[::-1]
    found = _existing(context, layer, known, client) or _mounted(context, layer, known, client)
    if found is not None:
        return found
    attempts = 0
    while True:
        cancellation.check()
        try:
            blob = _Upload(context, layer, client, cancellation).run()
            break
        except EngineError as exc:
            cancellation.check()
            attempts += 1
            if not may_try_again(exc) or attempts >= context.settings.max_download_attempts:
                raise
            log.info("Upload failed, retrying: %s", exc)
            count_down(
                delay_before(attempts, exc, context.settings),
                lambda status: say(context, layer, status),
                cancellation,
            )
    say(context, layer, "Pushed")
    _remember(context, layer, blob.digest)
    return blob


def say(context: UploadContext, layer: Layer, status: str) -> None:
    """A message about the layer without numbers."""
    context.emit({"status": status, "progressDetail": {}, "id": layer.diff_id[7:19]})


def _existing(
    context: UploadContext, layer: Layer, known: list[BlobSource], client: RepositoryClient
) -> Descriptor | None:
    """The blob, if the repository has one that is known to be this layer."""
    here = context.reference.name
    digests = dict.fromkeys(
        source.Digest for source in sorted(known, key=lambda each: each.SourceRepository != here)
    )
    for digest in list(digests)[:_MOST_CHECKS]:
        size = client.blob_size(digest)
        if size is not None:
            say(context, layer, "Layer already exists")
            _remember(context, layer, digest)
            return Descriptor(digest, size, DOCKER_LAYER)
    for source in known:
        if source.SourceRepository == here:
            context.metadata.remove(layer.diff_id, source)
    return None


def _mounted(
    context: UploadContext, layer: Layer, known: list[BlobSource], client: RepositoryClient
) -> Descriptor | None:
    """The blob, if the registry takes it over from another repository that we pulled or pushed it with."""
    attempts = 0
    for source in known:
        domain, _, path = source.SourceRepository.partition("/")
        if domain != context.reference.domain or path == context.reference.path:
            continue
        if source.HMAC and source != source_of(source.Digest, source.SourceRepository, context.auth):
            continue  # Another user's: this one need not know that it exists.
        attempts += 1
        if attempts > _MOST_MOUNTS:
            break
        try:
            url = client.start_upload(mount=source.Digest, source=path)
        except EngineError as exc:
            log.info("cannot mount %s from %s: %s", source.Digest, path, exc)
            continue
        if url:
            with suppress(EngineError):
                client.cancel_upload(url)
            continue
        size = client.blob_size(source.Digest)
        if size is not None:
            say(context, layer, f"Mounted from {path}")
            _remember(context, layer, source.Digest)
            return Descriptor(source.Digest, size, DOCKER_LAYER)
    return None


def _remember(context: UploadContext, layer: Layer, digest: str) -> None:
    context.metadata.add(layer.diff_id, source_of(digest, context.reference.name, context.auth))


class _Upload:
    """One attempt to send the layer."""

    def __init__(
        self, context: UploadContext, layer: Layer, client: RepositoryClient, cancellation: Cancellation
    ) -> None:
        self._context = context
        self._layer = layer
        self._client = client
        self._cancellation = cancellation
        self._hash = hashlib.sha256()
        self._size = 0

    def run(self) -> Descriptor:
        url = self._client.start_upload()
        try:
            pieces = self._compressed()
            rest = _gathered(pieces, _SMALL)
            if len(rest) >= _SMALL:
                # The length of the whole is not known before the end, so it goes chunked.
                url = self._client.upload(url, _chained(rest, pieces))
                rest = b""
            digest = f"sha256:{self._hash.hexdigest()}"
            self._client.finish_upload(url, digest, rest)
        except BaseException:
            with suppress(EngineError):
                self._client.cancel_upload(url)
            raise
        return Descriptor(digest, self._size, DOCKER_LAYER)

    def _compressed(self) -> Iterator[bytes]:
        """The layer's archive in gzip; the same input gives the same bytes."""
        context, layer = self._context, self._layer
        progress = Progress(context.emit, layer.diff_id[7:19], "Pushing", layer.size)
        compressor = zlib.compressobj(wbits=31)
        with context.layers.tar_stream(layer) as stream:
            while chunk := stream.read(_CHUNK):
                self._cancellation.check()
                yield from self._counted(compressor.compress(chunk))
                progress.advance(len(chunk))
        yield from self._counted(compressor.flush())
        progress.done()

    def _counted(self, piece: bytes) -> Iterator[bytes]:
        for start in range(0, len(piece), UPLOAD_BLOCK):
            block = piece[start : start + UPLOAD_BLOCK]
            self._hash.update(block)
            self._size += len(block)
            yield block


def _gathered(pieces: Iterator[bytes], enough: int) -> bytes:
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= enough:
            break
    return bytes(gathered)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
