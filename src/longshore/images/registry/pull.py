"""Pulling images: from the first endpoint that has them, layer by layer, said as dockerd says it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing, suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from longshore.errors import EngineError, InvalidParameter, NotFound
from longshore.images.progress import ProgressCallback
from longshore.images.reference import Reference, with_tag
from longshore.images.registry.client import RepositoryClient
from longshore.images.registry.endpoints import Endpoint, pull_endpoints
from longshore.images.registry.failures import Refused, may_try_elsewhere, renamed, translated
from longshore.images.registry.manifests import Descriptor, Index, Manifest, parse_manifest, select
from longshore.images.registry.metadata import source_of
from longshore.images.registry.platforms import Platform, host_platform, rank
from longshore.images.registry.threads import in_thread
from longshore.images.registry.transfers import Transfer, WantedLayer
from longshore.images.store import Image
from longshore.layers.layer import Layer, chain_id
from longshore.layers.store import MAX_DEPTH
from longshore.types.registry import AuthConfig

if TYPE_CHECKING:
    from longshore.images.registry.service import RegistryService

log = logging.getLogger(__name__)
T = TypeVar("T")


async def pull(
    registry: RegistryService,
    reference: Reference,
    platform: Platform | None,
    auth: AuthConfig,
    emit: ProgressCallback,
) -> None:
    """Bring the image in, or all tags of the repository if `reference` has neither tag nor digest.

    `emit` is called on the event loop with Docker's messages. On failure no name means anything new, and
    layers that nobody else waits for are gone. Raises NotFound, System, InvalidParameter.
    """

    async def from_endpoint(client: RepositoryClient) -> None:
        await _Puller(registry, client, reference, platform or host_platform(), emit).pull()

    endpoints = await in_thread(lambda _: pull_endpoints(reference, registry.settings()), abandon=True)
    try:
        await try_endpoints(registry, endpoints, reference, auth, "pull", from_endpoint)
    except EngineError as exc:
        raise translated(exc, reference) from exc
    if platform is not None:
        _warn_of_platform(registry, reference, platform, emit)


def _warn_of_platform(
    registry: RegistryService, reference: Reference, wanted: Platform, emit: ProgressCallback
) -> None:
    """A name without an index has one image only, whatever platform was asked for."""
    try:
        image = registry.images.get(registry.references.resolve(reference))
    except NotFound:
        return
    actual = Platform(image.os, image.architecture, image.variant)
    if rank(wanted, actual) is None:
        emit(
            {
                "status": f"WARNING: image with reference {reference} was found but does not "
                f"match the specified platform: wanted {wanted}, actual: {actual}"
            }
        )


async def try_endpoints(
    registry: RegistryService,
    endpoints: list[Endpoint],
    reference: Reference,
    auth: AuthConfig,
    actions: str,
    work: Callable[[RepositoryClient], Awaitable[T]],
) -> T:
    """Do `work` with the first endpoint that is there and may do it. Raises as `work`."""
    speaks_tls: set[str] = set()
    failure: EngineError = NotFound(f"no endpoints found for {reference.familiar}")
    for endpoint in endpoints:
        if endpoint.host in speaks_tls and endpoint.url.startswith("http:"):
            continue  # Whoever breaks the encrypted connection does not get a plain one.
        # Credentials are the registry's, not its mirrors'.
        given = AuthConfig() if endpoint.mirror else auth
        try:
            with closing(await _connect(registry, endpoint, reference.path, given, actions)) as client:
                await call(client, RepositoryClient.ping)
                speaks_tls.add(endpoint.host)
                return await work(client)
        except EngineError as exc:
            failure = exc
            if not may_try_elsewhere(exc, endpoint.mirror):
                break
            log.info("Attempting next endpoint after error: %s", exc)
    raise failure


async def _connect(
    registry: RegistryService, endpoint: Endpoint, path: str, auth: AuthConfig, actions: str
) -> RepositoryClient:
    return await in_thread(
        lambda _: RepositoryClient(endpoint, path, registry.settings(), auth, actions), abandon=True
    )


async def call(client: RepositoryClient, work: Callable[[RepositoryClient], T]) -> T:
    """A request in a thread, which ends when nobody waits for it."""
    return await in_thread(lambda cancellation: work(client.cancelled_by(cancellation)), abandon=True)


class ChosenImage(NamedTuple):
    """What a name means on one platform."""

    manifest: Manifest
    digest: str
    """Of what the name means: an index, if the registry has one."""


class _Puller:
    def __init__(
        self,
        registry: RegistryService,
        client: RepositoryClient,
        reference: Reference,
        platform: Platform,
        emit: ProgressCallback,
    ) -> None:
        self._registry = registry
        self._client = client
        self._reference = reference
        self._platform = platform
        self._emit = emit

    async def pull(self) -> None:
        reference = self._reference
        if reference.tag or reference.digest:
            is_new = await self._pull_one(reference)
        else:
            tags = await call(self._client, RepositoryClient.tags)
            is_new = False
            for tagged in [with_tag(reference, tag) for tag in tags]:
                is_new |= await self._pull_one(tagged)
        status = "Downloaded newer image for" if is_new else "Image is up to date for"
        self._emit({"status": f"Status: {status} {reference.familiar}"})

    async def _pull_one(self, reference: Reference) -> bool:
        """Whether the name means something else than before."""
        chosen = await self._choose(reference)
        id = chosen.manifest.config.digest
        images, references = self._registry.images, self._registry.references
        named = reference if reference.digest else reference.tagged

        def record() -> bool:
            try:
                is_new = references.resolve(named) != id
            except NotFound:
                is_new = True
            references.add_digest(reference._replace(tag="", digest=chosen.digest), id)
            if not reference.digest:
                references.add_tag(reference, id)
            if is_new and images.has(id):
                images.touch(id)
            return is_new

        is_new = False
        while True:
            if not images.has(id):
                await self._fetch(chosen.manifest, reference)
            is_new |= await asyncio.to_thread(record)
            if images.has(id):  # Nobody has removed it meanwhile because it had no name.
                self._emit({"status": f"Digest: {chosen.digest}"})
                return is_new

    async def _choose(self, reference: Reference) -> ChosenImage:
        digest = reference.digest or await call(
            self._client, lambda client: client.manifest_digest(reference.tag)
        )
        top = await call(self._client, lambda client: client.manifest(digest or reference.tag))
        found = parse_manifest(top.content, top.media_type, str(reference))
        self._emit(
            {
                "status": f"Pulling from {reference.path}",
                "id": str(reference) if reference.digest else reference.tag,
            }
        )
        if isinstance(found, Index):
            descriptor = select(found, self._platform)
            one = await call(self._client, lambda client: client.manifest(descriptor.digest))
            found = parse_manifest(one.content, one.media_type, str(reference))
        if isinstance(found, Index):
            raise Refused("unsupported manifest format: an index within an index")
        return ChosenImage(found, top.digest)

    async def _fetch(self, manifest: Manifest, reference: Reference) -> None:
        try:
            config = await call(self._client, lambda client: client.blob(manifest.config.digest))
        except EngineError as exc:
            raise renamed(exc, f"error pulling image configuration: {exc}") from exc
        try:
            image = Image(config)
        except InvalidParameter as exc:
            is_rootfs = "RootFS" in exc.message
            raise Refused("invalid rootfs in image configuration" if is_rootfs else exc.message) from None
        if image.os != "linux":
            raise Refused(f'image operating system "{image.os}" cannot be used on this platform')
        if len(image.diff_ids) != len(manifest.layers):
            raise Refused("layers from manifest don't match image configuration")
        if len(manifest.layers) > MAX_DEPTH:
            raise Refused("failed to register layer: max depth exceeded")
        async with AsyncExitStack() as held:
            await self._fetch_layers(manifest.layers, image, reference, held)
            await asyncio.to_thread(self._registry.images.create, config)

    async def _fetch_layers(
        self, blobs: list[Descriptor], image: Image, reference: Reference, held: AsyncExitStack
    ) -> None:
        """Have every layer here until `held` is closed."""
        layers, metadata = self._registry.layers, self._registry.metadata
        here: list[Layer] = []
        coming: list[Transfer] = []
        held.push_async_callback(_release, self._registry, here)
        held.push_async_callback(self._registry.transfers.leave, coming, self._emit)
        below: Transfer | str | None = None
        chain, key = "", ""
        for blob, diff_id in zip(blobs, image.diff_ids, strict=True):
            chain = chain_id([chain, diff_id] if chain else [diff_id])
            key = hashlib.sha256(f"{key} {blob.digest} {diff_id}".encode()).hexdigest()
            if not coming:
                with suppress(NotFound):
                    here.append(layers.get(chain))
                    below = chain
                    self._say(blob, "Already exists")
                    if metadata.diff_id(blob.digest) == diff_id:
                        metadata.add(diff_id, source_of(blob.digest, reference.name, None))
                    continue
            self._say(blob, "Pulling fs layer")
            wanted = WantedLayer(blob, diff_id, key, reference.name)
            below = self._registry.transfers.join(wanted, below, self._client, self._emit)
            coming.append(below)
        if coming:
            tasks = [transfer.task for transfer in coming]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()

    def _say(self, blob: Descriptor, status: str) -> None:
        self._emit({"status": status, "progressDetail": {}, "id": blob.digest[7:19]})


async def _release(registry: RegistryService, layers: list[Layer]) -> None:
    for layer in reversed(layers):
        await asyncio.to_thread(registry.layers.release, layer)
