"""Layers on their way in: fetched beside each other, registered in order, shared by pulls that want the same.

Lives on the event loop; what blocks runs in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

from longshore.errors import EngineError, System
from longshore.images.progress import Progress, ProgressCallback
from longshore.images.registry.client import RepositoryClient
from longshore.images.registry.download import download_blob
from longshore.images.registry.endpoints import RegistrySettings
from longshore.images.registry.failures import Cancelled
from longshore.images.registry.manifests import Descriptor
from longshore.images.registry.metadata import DistributionMetadata, source_of
from longshore.images.registry.threads import Slots, in_thread
from longshore.images.registry.transport import Cancellation
from longshore.layers.layer import Layer
from longshore.layers.store import LayerStore


class WantedLayer(NamedTuple):
    """A layer of an image that is being pulled."""

    blob: Descriptor
    diff_id: str
    key: str
    """Names the blobs of the chain up to here: equal for whoever wants the same layer on the same ones."""
    repository: str
    """Where it comes from, in full: `docker.io/library/busybox`."""


class Transfer:
    """One layer on its way, and who waits for it."""

    def __init__(self, wanted: WantedLayer, below: Transfer | str | None) -> None:
        self.wanted = wanted
        self.below = below
        self.task: asyncio.Task[Layer]
        self._loop = asyncio.get_running_loop()
        self._watchers: list[ProgressCallback] = []
        self._last: dict[str, Any] | None = None

    def watch(self, emit: ProgressCallback) -> None:
        """Tell `emit` what happens; at first, what happened last."""
        self._watchers.append(emit)
        if self._last is not None:
            emit(self._last)

    def unwatch(self, emit: ProgressCallback) -> bool:
        """Whether nobody is left."""
        self._watchers.remove(emit)
        return not self._watchers

    def has_failed(self) -> bool:
        """Whether those who wait are about to leave, and whoever comes now has to try again."""
        if isinstance(self.below, Transfer) and self.below.has_failed():
            return True
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)

    def emit(self, message: dict[str, Any]) -> None:
        """May be called in threads."""
        self._loop.call_soon_threadsafe(self._publish, message)

    def say(self, status: str) -> None:
        """A message without numbers."""
        self.emit({"status": status, "progressDetail": {}, "id": self.wanted.blob.digest[7:19]})

    def _publish(self, message: dict[str, Any]) -> None:
        self._last = message
        for emit in self._watchers:
            emit(message)


class LayerTransfers:
    """All layers on their way. A finished one holds its layer until everybody has left."""

    def __init__(
        self,
        layers: LayerStore,
        metadata: DistributionMetadata,
        spool: Path,
        settings: Callable[[], RegistrySettings],
    ) -> None:
        """Blobs are kept in the directory `spool` until they are registered."""
        self._layers = layers
        self._metadata = metadata
        self._spool = spool
        self._settings = settings
        self._slots = Slots(lambda: settings().max_concurrent_downloads)
        self._transfers: dict[str, Transfer] = {}

    def join(
        self,
        wanted: WantedLayer,
        below: Transfer | str | None,
        client: RepositoryClient,
        emit: ProgressCallback,
    ) -> Transfer:
        """Fetch the layer onto `below`, a chain id or a layer on its way itself, unless somebody does.

        Whoever joins has to `leave`.
        """
        transfer = self._transfers.get(wanted.key)
        if transfer is None or transfer.has_failed():
            transfer = self._transfers[wanted.key] = Transfer(wanted, below)
            transfer.task = asyncio.create_task(
                self._run(transfer, below, client), name=f"layer {wanted.key}"
            )
            # Those who wait see the failure; if they all left, it does not matter any more.
            transfer.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        transfer.watch(emit)
        return transfer

    async def leave(self, transfers: Iterable[Transfer], emit: ProgressCallback) -> None:
        """Wait no longer. What nobody waits for is broken off; it has ended when this returns."""
        alone = [transfer for transfer in transfers if transfer.unwatch(emit)]
        for transfer in alone:
            if self._transfers.get(transfer.wanted.key) is transfer:
                del self._transfers[transfer.wanted.key]
            transfer.task.cancel()
        for transfer in reversed(alone):
            await asyncio.wait([transfer.task])
            if not transfer.task.cancelled() and transfer.task.exception() is None:
                await asyncio.to_thread(self._layers.release, transfer.task.result())

    async def _run(self, transfer: Transfer, below: Transfer | str | None, client: RepositoryClient) -> Layer:
        async with self._slots.one(lambda: transfer.say("Waiting")):
            file = await in_thread(
                lambda cancellation: download_blob(
                    client.cancelled_by(cancellation),
                    transfer.wanted.blob,
                    self._spool,
                    self._settings(),
                    transfer.emit,
                    cancellation,
                ),
                discard=lambda file: file.close(),
                abandon=True,
            )
        with file:
            parent = (await asyncio.shield(below.task)).chain_id if isinstance(below, Transfer) else below
            layer = await in_thread(
                lambda cancellation: self._register(transfer, file, parent, cancellation),
                discard=self._layers.release,
            )
        transfer.say("Pull complete")
        return layer

    def _register(
        self, transfer: Transfer, file: IO[bytes], parent: str | None, cancellation: Cancellation
    ) -> Layer:
        wanted = transfer.wanted
        progress = Progress(transfer.emit, wanted.blob.digest[7:19], "Extracting", wanted.blob.size)
        try:
            layer = self._layers.register(
                progress.watch(_Cancellable(file, cancellation)), parent, wanted.diff_id
            )
        except Cancelled:
            raise
        except EngineError as exc:
            raise System(f"failed to register layer: {exc}") from exc
        except OSError as exc:
            raise System(f"failed to register layer: {exc.strerror or exc}") from exc
        progress.done()
        self._metadata.add(wanted.diff_id, source_of(wanted.blob.digest, wanted.repository, None))
        return layer


class _Cancellable:
    """A file whose reader can be ended."""

    def __init__(self, file: IO[bytes], cancellation: Cancellation) -> None:
        self._file = file
        self._cancellation = cancellation

    def read(self, count: int = -1) -> bytes:
        self._cancellation.check()
        return self._file.read(count)
