"""Pushing images: each layer at most once, then the configuration, then the manifest under its tag."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from longshore.errors import NotFound, System
from longshore.images.progress import ProgressCallback
from longshore.images.reference import Reference
from longshore.images.registry.auth import NoCredentials
from longshore.images.registry.client import RepositoryClient
from longshore.images.registry.endpoints import registry_endpoints
from longshore.images.registry.failures import Refused
from longshore.images.registry.manifests import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    Descriptor,
    docker_manifest,
)
from longshore.images.registry.pull import call, try_endpoints
from longshore.images.registry.threads import in_thread
from longshore.images.registry.upload import UploadContext, say, upload_layer
from longshore.layers.layer import Layer
from longshore.types.registry import AuthConfig

if TYPE_CHECKING:
    from longshore.images.registry.service import RegistryService


async def push(
    registry: RegistryService, reference: Reference, auth: AuthConfig, emit: ProgressCallback
) -> None:
    """Bring the image to its registry, or all tags of the repository if `reference` has no tag.

    `emit` is called on the event loop with Docker's messages. Raises NotFound, System.
    """
    emit({"status": f"The push refers to repository [{reference.name}]"})
    if reference.digest:
        raise System("cannot push a digest reference")
    tags = _tags(registry, reference)

    async def to_endpoint(client: RepositoryClient) -> None:
        for tagged, id in tags:
            await _Pusher(registry, client, tagged, auth, emit).push(id)

    endpoints = await in_thread(
        lambda _: registry_endpoints(reference.domain, registry.settings()), abandon=True
    )
    try:
        await try_endpoints(registry, endpoints, reference, auth, "pull,push", to_endpoint)
    except Refused as exc:
        if isinstance(exc.__cause__, NoCredentials):
            raise System(exc.__cause__.message) from exc
        raise


def _tags(registry: RegistryService, reference: Reference) -> list[tuple[Reference, str]]:
    """What to push: tags and the images they mean."""
    named = registry.references.of_repository(reference)
    if not named:
        raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
    if reference.tag:
        try:
            return [(reference, registry.references.resolve(reference))]
        except NotFound:
            raise NotFound(f"tag does not exist: {reference.familiar}") from None
    tags = [(tagged, id) for tagged, id in named if tagged.tag and not tagged.digest]
    if not tags:
        raise NotFound(f"no tags to push for {reference.familiar_name}")
    return tags


class _Pusher:
    """Pushes one image under one tag."""

    def __init__(
        self,
        registry: RegistryService,
        client: RepositoryClient,
        reference: Reference,
        auth: AuthConfig,
        emit: ProgressCallback,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._registry = registry
        self._client = client
        self._reference = reference
        self._auth = auth
        self._emit = emit

        def said(message: dict[str, object]) -> None:
            loop.call_soon_threadsafe(emit, message)

        self._context = UploadContext(
            reference,
            auth,
            registry.layers,
            registry.metadata,
            registry.settings(),
            said,
        )

    async def push(self, id: str) -> None:
        image = self._registry.images.get(id)
        held = self._registry.layers.get(image.chain_id) if image.chain_id else None
        try:
            layers = await self._push_layers(_chain(held))
        finally:
            if held is not None:
                await asyncio.to_thread(self._registry.layers.release, held)
        config = Descriptor(id, len(image.raw), DOCKER_CONFIG)
        await call(self._client, lambda client: _push_config(client, config, image.raw))
        manifest = docker_manifest(config, layers)
        tag = self._reference.tag
        await call(self._client, lambda client: client.put_manifest(tag, manifest, DOCKER_MANIFEST))
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        self._emit({"status": f"{tag}: digest: {digest} size: {len(manifest)}"})
        await asyncio.to_thread(
            self._registry.references.add_digest, self._reference._replace(tag="", digest=digest), id
        )
        self._emit({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": len(manifest)}})

    async def _push_layers(self, layers: list[Layer]) -> list[Descriptor]:
        """The blobs that the layers are there, in their order."""
        different = {layer.diff_id: layer for layer in reversed(layers)}
        for layer in different.values():
            say(self._context, layer, "Preparing")
        tasks = {diff_id: asyncio.create_task(self._push_layer(each)) for diff_id, each in different.items()}
        if not tasks:
            return []
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks.values():
                if task.done():
                    task.result()
            return [tasks[layer.diff_id].result() for layer in layers]
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _push_layer(self, layer: Layer) -> Descriptor:
        async with self._registry.upload_slots.one(lambda: say(self._context, layer, "Waiting")):
            return await in_thread(
                lambda cancellation: upload_layer(
                    self._context, layer, self._client.cancelled_by(cancellation), cancellation
                )
            )


def _push_config(client: RepositoryClient, config: Descriptor, content: bytes) -> None:
    if client.blob_size(config.digest) is None:
        client.finish_upload(client.start_upload(), config.digest, content)


def _chain(layer: Layer | None) -> list[Layer]:
    """Lowest first."""
    chain: list[Layer] = []
    while layer is not None:
        chain.append(layer)
        layer = layer.parent
    return chain[::-1]
