"""dockerd's database of volumes, which knows their labels: read once, and told what has changed since."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from longshore.bolt import BrokenDatabase, Bucket
from longshore.bolt.database import SharedDatabase

_BUCKET = b"volumes"
_PAUSE = 0.2
"""Seconds between two writes, of a millisecond each: a change is written at once, the next with what follows.

Volumes are found without the database: should we be killed in between, dockerd lacks some labels.
"""

log = logging.getLogger(__name__)


class VolumeMetadata(msgspec.Struct, rename="pascal"):
    """A volume as dockerd notes it."""

    name: str
    driver: str = "local"
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None


class VolumeDatabase:
    """`volumes/metadata.db`. Methods block, and may be called by any thread."""

    def __init__(self, path: Path) -> None:
        self._database = SharedDatabase(path)
        self._root: Bucket | None = None
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._timer: threading.Timer | None = None
        self._last = -_PAUSE

    def open(self) -> dict[str, VolumeMetadata]:
        """What it knows, by name. Raises Conflict if a dockerd has it open; a damaged one is left alone."""
        try:
            self._root = self._database.open()
        except (BrokenDatabase, OSError) as exc:
            log.error("%s cannot be read, and is left as it is: %s", self._database.path, exc)
            return {}
        found = {}
        for key, value in self._root.bucket(_BUCKET).values().items():
            try:
                found[key.decode()] = msgspec.json.decode(value, type=VolumeMetadata)
            except (UnicodeDecodeError, msgspec.MsgspecError):
                log.warning("what dockerd noted of volume %r cannot be read", key)
        return found

    def save_soon(self, volumes: Callable[[], Iterable[VolumeMetadata]]) -> None:
        """Write what `volumes` then answers: now, beside the caller, or shortly after the last time."""
        with self._lock:
            if self._timer is None and self._root is not None:
                delay = max(self._last + _PAUSE - time.monotonic(), 0)
                self._timer = threading.Timer(delay, self.save_now, [volumes])
                self._timer.daemon = True
                self._timer.start()

    def save_now(self, volumes: Callable[[], Iterable[VolumeMetadata]]) -> None:
        """Write what is known nowhere else; a failure is logged."""
        try:
            self.save(volumes)
        except OSError as exc:
            log.error("%s could not be written: %s", self._database.path, exc)

    def save(self, volumes: Callable[[], Iterable[VolumeMetadata]]) -> None:
        """Make it hold just these volumes. Raises OSError."""
        with self._writing:
            with self._lock:
                self._timer = None
            if self._root is None:
                return
            wanted = {volume.name.encode(): msgspec.json.encode(volume) for volume in volumes()}
            bucket = self._root.bucket(_BUCKET)
            before = bucket.items
            if wanted != before:
                self._last = time.monotonic()
                bucket.items = {**wanted}
                try:
                    self._database.save(self._root)
                except BaseException:
                    bucket.items = before  # It is not there: the next time has to write it.
                    raise

    def close(self, volumes: Callable[[], Iterable[VolumeMetadata]]) -> None:
        """Write what still waits, and let dockerd have it."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
        self.save_now(volumes)
        with self._writing:
            self._root = None
            self._database.close()
