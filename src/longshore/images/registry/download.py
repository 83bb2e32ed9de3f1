"""Fetching one blob into an unnamed file: resumed where it broke off, verified at its end. Blocking."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from longshore.errors import EngineError
from longshore.images.progress import Progress, ProgressCallback
from longshore.images.registry.client import RepositoryClient
from longshore.images.registry.endpoints import RegistrySettings
from longshore.images.registry.failures import (
    LONGEST_WAIT,
    Refused,
    Unreachable,
    may_try_again,
    wait_asked_for,
)
from longshore.images.registry.manifests import Descriptor
from longshore.images.registry.transport import Cancellation, named_failure

log = logging.getLogger(__name__)

_CHUNK = 1 << 18


def download_blob(
    client: RepositoryClient,
    blob: Descriptor,
    directory: Path,
    settings: RegistrySettings,
    emit: ProgressCallback,
    cancellation: Cancellation,
) -> IO[bytes]:
    """A file with the verified blob, at its start; it has no name, so nobody else sees it or has to clean up.

    Raises Refused if the registry sent something else, Cancelled, or its failure after as many attempts as
    the settings allow.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def say(status: str) -> None:
        emit({"status": status, "progressDetail": {}, "id": blob.digest[7:19]})

    download = _Download(client, blob, tempfile.TemporaryFile(dir=directory), emit)  # noqa: SIM115
    try:
        attempts = 0
        while True:
            cancellation.check()
            try:
                download.go_on(cancellation)
                break
            except EngineError as exc:
                cancellation.check()
                attempts += 1
                if not may_try_again(exc) or attempts >= settings.max_download_attempts:
                    raise
                log.info(
                    "Download failed, retrying (%d/%d): %s", attempts, settings.max_download_attempts, exc
                )
                count_down(delay_before(attempts, exc, settings), say, cancellation)
        say("Verifying Checksum")
        download.verify()
        say("Download complete")
        download.file.seek(0)
        return download.file
    except BaseException:
        download.file.close()
        raise


class _Download:
    """What has come of a blob so far."""

    def __init__(
        self, client: RepositoryClient, blob: Descriptor, file: IO[bytes], emit: ProgressCallback
    ) -> None:
        self.file = file
        self._client = client
        self._blob = blob
        self._emit = emit
        self._hash = hashlib.sha256()
        self._received = 0

    def go_on(self, cancellation: Cancellation) -> None:
        """Fetch what is missing. Raises Unreachable when the connection breaks."""
        url = self._client.blob_url(self._blob.digest)
        answer = self._client.open_blob(self._blob.digest, self._received)
        try:
            if self._received and not self._is_continued(
                answer.status, answer.headers.get("Content-Range", "")
            ):
                self._start_over()
            if answer.status == 416:
                raise Unreachable(f'Get "{url}": there is nothing to go on with')
            self._check_length(answer.headers.get("Content-Length", ""))
            progress = Progress(self._emit, self._blob.digest[7:19], "Downloading", self._blob.size)
            progress.advance(self._received)
            with cancellation.calls(answer.shutdown), named_failure("GET", url):
                while chunk := answer.read1(_CHUNK):
                    cancellation.check()
                    self._take(chunk)
                    progress.advance(len(chunk))
            if self._received < self._blob.size:
                raise Unreachable(f'Get "{url}": unexpected EOF')
            progress.done()
        finally:
            answer.close()

    def verify(self) -> None:
        """Raises Refused."""
        if f"sha256:{self._hash.hexdigest()}" != self._blob.digest:
            raise Refused(f"filesystem layer verification failed for digest {self._blob.digest}")

    def _take(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._received > self._blob.size:
            # More than the manifest promised cannot have its digest; a disk need not be filled to know.
            raise Refused(f"filesystem layer verification failed for digest {self._blob.digest}")
        self.file.write(chunk)
        self._hash.update(chunk)

    def _check_length(self, said: str) -> None:
        """Raises Refused for what cannot have the digest, before a byte of it was taken."""
        if said.isdecimal() and self._received + int(said[:20]) != self._blob.size:
            raise Refused(
                f"filesystem layer verification failed for digest {self._blob.digest}: "
                f"{self._received + int(said[:20])} bytes instead of {self._blob.size}"
            )

    def _is_continued(self, status: int, content_range: str) -> bool:
        return status == 206 and content_range.startswith(f"bytes {self._received}-")

    def _start_over(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self._hash = hashlib.sha256()
        self._received = 0


def count_down(seconds: float, say: Callable[[str], None], cancellation: Cancellation) -> None:
    """Wait before the next attempt, and say for how long still. Raises Cancelled."""
    while seconds > 0:
        shown = max(round(seconds), 1)
        say(f"Retrying in {shown} second{'' if shown == 1 else 's'}")
        cancellation.sleep(min(seconds, 1.0))
        seconds -= 1.0


def delay_before(attempt: int, error: EngineError, settings: RegistrySettings) -> float:
    """Seconds to wait before the attempt after `attempt`, which failed."""
    return min(wait_asked_for(error) or settings.retry_delay * 2 ** (attempt - 1), LONGEST_WAIT)
