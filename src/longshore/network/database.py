"""dockerd's database of networks, kept in step with ours, so that either daemon finds what the other made."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from longshore.bolt import BrokenDatabase, Bucket
from longshore.bolt.database import SharedDatabase
from longshore.network import dockerd
from longshore.network.create import PREDEFINED
from longshore.network.dockerd_sandboxes import KINDS, sandbox_values
from longshore.network.network import Network
from longshore.network.options import DEFAULT_BRIDGE
from longshore.network.record import NetworkRecord
from longshore.network.sandbox_record import SandboxRecord
from longshore.network.store import Store

_LIBNETWORK, _OURS = b"libnetwork", b"longshore"

log = logging.getLogger(__name__)


class NetworkDatabase:
    """`network/files/local-kv.db`. Methods block, and take turns.

    A bucket of our own in it names the networks that both daemons know: what one of these has lost since, the
    other removed. dockerd leaves a bucket that it does not know as it is.
    """

    def __init__(self, path: Path) -> None:
        self._database = SharedDatabase(path, 0o644)
        self._root: Bucket | None = None
        self._lock = threading.RLock()

    def merge(self, store: Store) -> list[NetworkRecord]:
        """All networks: ours, and what a dockerd has made of them meanwhile. Raises Conflict, OSError."""
        stored = {record.id: record for record in store.load("network", NetworkRecord)}
        made, removed = self.open(list(stored.values()))
        names = {record.name for record in made} & set(PREDEFINED)
        removed += [record for record in stored.values() if record.name in names]
        for record in made:
            store.save("network", record.id, record, durable=True)
            stored[record.id] = record
        for record in removed:
            store.delete("network", record.id)
            stored.pop(record.id, None)
        return list(stored.values())

    def open(self, stored: Sequence[NetworkRecord]) -> tuple[list[NetworkRecord], list[NetworkRecord]]:
        """Compare with our records. Returns those that dockerd made meanwhile, and those that it removed.

        Raises Conflict if dockerd runs on it. A database that cannot be read changes nothing.
        """
        with self._lock:
            try:
                self._root = self._database.open()
            except (BrokenDatabase, OSError) as exc:
                log.error("%s cannot be read, and is left as it is: %s", self._database.path, exc)
                return [], []
            kept, known = self._root.bucket(_LIBNETWORK), self._root.bucket(_OURS).items
            ours = {record.id for record in stored}
            for id in [id.decode() for id in known if id.decode() not in ours]:
                self.remove(id)  # A removal that a crash cut off.
            values = kept.values()
            present = set(dockerd.network_ids(values))
            removed = [
                record for record in stored if record.id.encode() in known and record.id not in present
            ]
            made = [dockerd.to_record(values, id) for id in sorted(present - ours)]
            return [record for record in made if record is not None], removed

    def add(self, records: Sequence[NetworkRecord]) -> None:
        """Let dockerd know these networks too. Raises OSError."""
        with self._lock:
            if self._root is None:
                return
            kept, known = self._root.bucket(_LIBNETWORK).items, self._root.bucket(_OURS).items
            new = False
            for record in records:
                # dockerd makes the default bridge anew each time it starts, under another id.
                # Without a store that it shares with others, it has no networks that span machines.
                local = record.scope == "local"
                if record.id.encode() in known or DEFAULT_BRIDGE in record.options or not local:
                    continue
                known[record.id.encode()] = b""
                for key, value in dockerd.to_values(record).items():
                    kept.setdefault(key, value)
                new = True
            if new:
                self._database.save(self._root)

    def remove(self, id: str) -> None:
        """Let dockerd forget a network. Raises OSError."""
        with self._lock:
            if self._root is not None and self._root.bucket(_OURS).items.pop(id.encode(), None) is not None:
                dockerd.remove(self._root.bucket(_LIBNETWORK).items, id)
                self._database.save(self._root)

    def leave(self, sandboxes: Sequence[SandboxRecord], networks: Mapping[str, Network]) -> None:
        """Let dockerd know what runs on while it takes over; `networks` by id."""
        with self._lock:
            if self._root is None:
                return
            kept = self._root.bucket(_LIBNETWORK).items
            stale = tuple(dockerd.key(kind) for kind in KINDS)
            for key in [key for key in kept if key.startswith(stale)]:
                del kept[key]
            for network in networks.values():
                # With containers that run dockerd makes no default bridge, but takes the one there is.
                if network.is_default_bridge:
                    kept.update(dockerd.to_values(network.record))
            kept.update(sandbox_values(sandboxes, networks))
            try:
                self._database.save(self._root)
            except OSError as exc:
                log.error("%s cannot be written: %s", self._database.path, exc)

    def close(self) -> None:
        """Let dockerd have it."""
        with self._lock:
            self._database.close()
            self._root = None
