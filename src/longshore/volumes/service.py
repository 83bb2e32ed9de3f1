"""Named volumes, of the local driver and of plug-ins: made, found, mounted, counted, removed.

On disk as dockerd's local driver keeps them: `<data root>/volumes/<name>/_data`, with `opts.json` for those
that mount something. Labels lie in `longshore.json` beside; dockerd keeps them in a database, which is told.
Of a plug-in's volume nothing lies here: that it exists stands in this database only, as with dockerd.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from longshore.errors import Conflict, EngineError, NotFound
from longshore.locks import NameLocks
from longshore.types.filters import (
    Filters,
    boolean_filter,
    check_filters,
    exactly,
    has_labels,
    labels_match,
    matches,
)
from longshore.types.volume import UsageData, Volume
from longshore.volumes.database import VolumeDatabase, VolumeMetadata
from longshore.volumes.directories import VolumeDirectories, check_name
from longshore.volumes.local import LocalMount, needs_mount
from longshore.volumes.record import VolumeRecord
from longshore.volumes.remote import RemoteVolumes, Survey
from longshore.volumes.size import directory_size

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_LOCAL = ("", "local")

log = logging.getLogger(__name__)


class VolumeService:
    """All volumes. Methods may be called by any thread, and block: on the disk, or on a plug-in."""

    def __init__(
        self,
        root: Path,
        on_event: Callable[[str, str, dict[str, str]], None] | None = None,
        owner: tuple[int, int] = (0, 0),
    ) -> None:
        """`root` is `<data root>/volumes`; new volumes belong to `owner`, the host ids of containers' root.

        `on_event(action, name, attributes)` hears of create, mount, unmount and destroy.
        """
        self._on_event = on_event or (lambda action, name, attributes: None)
        self._records: dict[str, VolumeRecord] = {}
        self._references: dict[str, set[str]] = {}
        self._mounts: dict[str, LocalMount] = {}
        self._users: set[tuple[str, str]] = set()
        """(volume, container) of those that mounted it and have not given it back."""
        self._remote = RemoteVolumes()
        self._locks = NameLocks()
        self._counting = threading.Lock()
        """Never held for long: no volume goes while somebody begins to refer to it."""
        self._pruning = threading.Lock()
        self._directories = VolumeDirectories(root, owner)
        self._database = VolumeDatabase(root / "metadata.db")
        theirs = self._database.open()
        for entry in self._directories.restore(theirs):
            self._adopt(entry)
        for name, kept in theirs.items():
            if kept.driver not in _LOCAL:
                options = kept.options or {}
                self._records[name] = VolumeRecord(name, "", kept.labels, options, kept.driver)
        self._database.save_soon(self._metadata)

    def create(
        self,
        name: str = "",
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        ref: str = "",
    ) -> Volume:
        """Make a volume, or answer the one that exists under the name. No name makes an anonymous one.

        `ref`, a container's id, is counted as using it at once. Raises InvalidParameter for a bad name or
        option, NotFound for an unknown driver, Conflict if it exists with another driver. That it exists with
        other options is no error, as in dockerd.
        """
        all_labels = dict(labels or {})
        if not name:
            name = token_hex(32)
            driver = driver or "local"
            all_labels[ANONYMOUS_LABEL] = ""
        if driver in _LOCAL:
            check_name(name)
        with self._locks.hold(name):
            present = self._present(name, driver)
            if present is None:
                present = self._make(name, driver or "local", dict(options or {}), all_labels)
                self._on_event("create", name, {"driver": present.driver})
            if driver and driver != present.driver:
                raise Conflict(
                    f"create {name}: driver '{present.driver}' already has volume '{name}': "
                    "volume name must be unique"
                )
            if ref:
                self.reference(name, ref)
        return self._describe(present) if present.driver == "local" else self._remote.outline(present)

    def get(self, name: str) -> Volume:
        """Raises NotFound; System if it is a plug-in's, and that does not tell."""
        entry = self._records.get(name)
        if entry is not None and entry.driver == "local":
            return self._describe(entry)
        with self._locks.hold(name):
            entry = self._found(name)
            if entry.driver == "local":
                return self._describe(entry)
            with _named(f"get {name}"):
                described = self._remote.describe(entry)
            if described is None:
                self._purge(entry)
                raise NotFound(f"get {name}: no such volume")
            return described

    def list(self, filters: Filters | None = None) -> Sequence[Volume]:
        """All volumes that match `filters` (dangling, driver, label, name), by name.

        Raises InvalidParameter for another filter or a value of dangling that is no boolean.
        """
        return self.survey(filters)[0]

    def survey(self, filters: Filters | None = None) -> tuple[Sequence[Volume], Sequence[str]]:
        """As `list`, and warnings of what could not be seen because a plug-in does not answer."""
        filters = filters or {}
        check_filters(filters, ("dangling", "driver", "label", "name"))
        dangling = boolean_filter(filters, "dangling")
        only_local = set(filters.get("driver", ())) == {"local"}
        theirs, warnings = (Survey(), []) if only_local else self._remote.survey()
        # What a plug-in says is told, not kept: it may say anything.
        known = {name: VolumeRecord(name, driver=driver) for name, driver in theirs.drivers.items()}
        known |= self._records
        return [
            self._describe(entry) if entry.driver == "local" else theirs.describe(entry)
            for name, entry in sorted(known.items())
            if not theirs.denies(entry)
            and exactly(filters, "driver", entry.driver)
            and matches(filters, "name", name)
            and has_labels(entry.labels or {}, filters.get("label", ()))
            and (dangling is None or dangling != bool(self.references(name)))
        ], warnings

    def remove(self, name: str, *, force: bool = False, quiet: bool = False) -> None:
        """Remove a volume and its content. With `force` a missing one is no error, `quiet` is without event.

        Raises NotFound, or Conflict while containers refer to it.
        """
        with self._locks.hold(name):
            try:
                entry = self._found(name)
            except NotFound:
                if force:
                    return
                raise
            with self._counting:
                if references := self._references.get(name):
                    raise Conflict(f"remove {name}: volume is in use - [{', '.join(sorted(references))}]")
                if self._is_mounted(name):
                    raise Conflict(f"remove {name}: volume has active mounts")
                del self._records[name]
            try:
                if entry.driver == "local":
                    self._delete(name)
                else:
                    with _named(f"remove {name}"):
                        self._remote.remove(entry)
            except BaseException:
                self._records[name] = entry
                raise
            (self._database.save_soon if entry.driver == "local" else self._database.save_now)(self._metadata)
            if not quiet:
                self._on_event("destroy", name, {"driver": entry.driver})

    def prune(self, filters: Filters | None = None) -> tuple[Sequence[str], int]:
        """Remove what no container refers to: anonymous volumes, or all with the filter `all`.

        Only what takes space here: volumes of plug-ins, or with options, which may lie anywhere, are kept, as
        dockerd keeps them. Filters: all, label, label!. Returns names and bytes freed. Raises
        InvalidParameter, Conflict while somebody else does the same.
        """
        filters = filters or {}
        check_filters(filters, ("all", "label", "label!"))
        everything = boolean_filter(filters, "all")
        if not self._pruning.acquire(blocking=False):
            raise Conflict("a prune operation is already running")
        try:
            deleted, freed = [], 0
            for name, entry in sorted(self._records.items()):
                labels = entry.labels or {}
                if entry.driver != "local" or entry.options or self.references(name):
                    continue
                if not (everything or ANONYMOUS_LABEL in labels) or not labels_match(filters, labels):
                    continue
                try:
                    size = max(self.usage(name).Size, 0)
                    self.remove(name, quiet=True)  # One event tells of them all.
                except EngineError as exc:  # taken or removed in between, or kept by something else
                    log.warning("volume %s is not pruned: %s", name, exc)
                    continue
                deleted.append(name)
                freed += size
            return deleted, freed
        finally:
            self._pruning.release()

    def reference(self, name: str, ref: str) -> None:
        """Count `ref`, a container's id, as using the volume. Raises NotFound."""
        with self._counting:
            self._record(name)
            self._references.setdefault(name, set()).add(ref)

    def release(self, name: str, ref: str) -> None:
        """Take a reference back; one that is not held is no error."""
        with self._counting:
            holders = self._references.get(name)
            if holders is not None:
                holders.discard(ref)
                if not holders:
                    del self._references[name]

    def references(self, name: str) -> frozenset[str]:
        """The containers that use the volume, running or not."""
        with self._counting:
            return frozenset(self._references.get(name, ()))

    def mount(self, name: str, ref: str, attributes: Mapping[str, str] | None = None) -> Path:
        """Where the content is, mounted if the volume has options. Idempotent for each `ref`.

        `attributes` tell the event more; without any there is none: the daemon itself looks inside.
        Raises NotFound, or System if the mount fails.
        """
        with self._locks.hold(name):
            entry = self._record(name)
            where = self._directories.data(name)
            if entry.driver != "local":
                with _named(f"error while mounting volume '{name}'"):
                    where = self._remote.mount(entry, ref)
            elif needs_mount(entry.options):
                mounted = self._mounts.get(name) or LocalMount(entry.options, where)
                mounted.acquire(name, ref)
                self._mounts[name] = mounted
            else:
                self._directories.limit(entry)
            self._users.add((name, ref))
        if attributes is not None:
            self._on_event("mount", name, {"driver": entry.driver, "container": ref, **attributes})
        return where

    def unmount(self, name: str, ref: str, *, quiet: bool = False) -> None:
        """Take back what `mount` gave to `ref`; the last one unmounts. Not being mounted is no error.

        `quiet`: without an event.
        """
        with self._locks.hold(name):
            self._remote.unmount(name, ref)
            mounted = self._mounts.get(name)
            if mounted is not None and mounted.release(ref):
                del self._mounts[name]
            was_used = (name, ref) in self._users
            self._users.discard((name, ref))
        if was_used and not quiet:
            entry = self._records.get(name)
            driver = entry.driver if entry is not None else "local"
            self._on_event("unmount", name, {"driver": driver, "container": ref})

    def path(self, name: str) -> Path:
        """A local volume's directory on the host, mounted or not. Raises NotFound."""
        self._record(name)
        return self._directories.data(name)

    def usage(self, name: str) -> UsageData:
        """Size and references, for `docker system df`; -1 for a size that cannot be told.

        Walks the whole volume: call it in a thread. Raises NotFound.
        """
        entry, size = self._record(name), -1
        if entry.driver == "local" and not needs_mount(entry.options):
            try:
                size = directory_size(self._directories.data(name))
            except OSError as exc:  # removed meanwhile, mostly
                log.warning("the size of volume %s is unknown: %s", name, exc)
        return UsageData(Size=size, RefCount=len(self.references(name)))

    def drivers(self) -> Sequence[str]:
        """Names of the drivers that were used so far."""
        return sorted({"local", *self._remote.names()})

    def close(self) -> None:
        """Let another daemon have the volumes. Blocks."""
        self._database.close(self._metadata)

    def _make(self, name: str, driver: str, options: dict[str, str], labels: dict[str, str]) -> VolumeRecord:
        if driver == "local":
            entry = self._records[name] = self._directories.make(name, options, labels)
            self._database.save_soon(self._metadata)
            return entry
        entry = VolumeRecord(name, "", labels or None, options, driver)
        self._remote.create(entry)
        self._records[name] = entry
        self._database.save_now(self._metadata)
        return entry

    def _present(self, name: str, driver: str) -> VolumeRecord | None:
        """The volume, if there is one: here, or, should any do (`driver` is ""), with a plug-in."""
        entry = self._records.get(name)
        if entry is None:
            return None if driver else self._probed(name)
        if entry.driver != "local" and driver in ("", entry.driver) and self._remote.describe(entry) is None:
            if self.references(name):
                raise Conflict(
                    f"create {name}: found references to volume '{name}' in driver '{entry.driver}' but "
                    "the volume was not found in the driver -- you may need to remove containers referencing "
                    "this volume or force remove the volume to re-create it: volume name must be unique"
                )
            self._purge(entry)
            return None
        return entry

    def _found(self, name: str) -> VolumeRecord:
        """The volume, here or with a plug-in. Raises NotFound."""
        entry = self._records.get(name) or self._probed(name)
        if entry is None:
            raise NotFound(f"get {name}: no such volume")
        return entry

    def _probed(self, name: str) -> VolumeRecord | None:
        entry = self._remote.probe(name)
        return None if entry is None else self._records.setdefault(name, entry)

    def _purge(self, entry: VolumeRecord) -> None:
        """Forget a volume that its plug-in does not have, unless somebody counts on it."""
        with self._counting:
            if not self._references.get(entry.name) and self._records.get(entry.name) is entry:
                del self._records[entry.name]
        self._database.save_now(self._metadata)

    def _is_mounted(self, name: str) -> bool:
        mounted = self._mounts.get(name)
        return (mounted is not None and mounted.is_used) or self._remote.is_mounted(name)

    def _delete(self, name: str) -> None:
        if mounted := self._mounts.pop(name, None):
            mounted.release("")  # left by a daemon that died
        self._directories.delete(name)

    def _metadata(self) -> Iterable[VolumeMetadata]:
        for entry in list(self._records.values()):
            yield VolumeMetadata(entry.name, entry.driver, entry.labels, entry.options or None)

    def _adopt(self, entry: VolumeRecord) -> None:
        self._records[entry.name] = entry
        if needs_mount(entry.options):
            mounted = LocalMount(entry.options, self._directories.data(entry.name))
            with suppress(OSError):
                if mounted.is_mounted():  # left by a daemon that died: its containers may still run
                    self._mounts[entry.name] = mounted

    def _record(self, name: str) -> VolumeRecord:
        try:
            return self._records[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    def _describe(self, entry: VolumeRecord) -> Volume:
        return Volume(
            CreatedAt=entry.created,
            Labels=entry.labels,
            Mountpoint=str(self._directories.data(entry.name)),
            Name=entry.name,
            Options=entry.options or None,
        )


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Failures say what failed."""
    try:
        yield
    except EngineError as exc:
        raise type(exc)(f"{what}: {exc}") from exc
