"""`RUN --mount=type=cache`: directories that outlive builds, the only build cache with records of its own.

`builder/cache/<id>/` of the data root holds `data`, which is mounted, and `record.json`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from longshore.build.mounts import Mount
from longshore.build.sources import find_sources
from longshore.errors import NotFound
from longshore.layers.overlaydiff import tree_size
from longshore.layers.remove import remove_tree
from longshore.linux.files import write_atomically
from longshore.types.codec import ApiStruct, names
from longshore.types.filters import Filters, check_filters
from longshore.types.timestamp import now, parse_moment, parse_rfc3339

if TYPE_CHECKING:
    from longshore.engine.engine import Engine

KIND = "exec.cachemount"
_REMOVING = "removing-"


class BuildCacheRecord(ApiStruct):
    """An item of `BuildCache` in GET /system/df. Size in bytes, times RFC 3339."""

    _omitempty = names("Parent Parents")
    ID: str
    Parent: str = ""
    Parents: list[str] | None = None
    Type: str = KIND
    Description: str = ""
    InUse: bool = False
    Shared: bool = False
    Size: int = 0
    CreatedAt: str = ""
    LastUsedAt: str | None = None
    UsageCount: int = 0


class BuildCachePruneReport(ApiStruct):
    """Answer to POST /build/prune. SpaceReclaimed in bytes."""

    CachesDeleted: list[str] | None = None
    SpaceReclaimed: int = 0


class _Record(msgspec.Struct):
    key: str
    target: str
    created: str
    used: str = ""
    count: int = 0


@dataclass
class CacheMounts:
    """Caches in use by running steps, of one engine."""

    counts: dict[str, int] = field(default_factory=dict)
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)


@dataclass(frozen=True)
class Holder:
    """A cache that a step has in use. `release` may be called in any thread."""

    path: Path
    release: Callable[[], None]


async def acquire(engine: Engine, mount: Mount, base: Path | None) -> Holder:
    """The directory of a cache mount, made if there is none; with `sharing=locked` once it is free.

    `base` is the file system that a new one is filled from. Raises NotFound, OSError.
    """
    key = mount.id or mount.target
    id = hashlib.sha256(f"{key}\0{mount.origin}\0{mount.source}".encode()).hexdigest()[:25]
    use = engine.cache_mounts
    loop = asyncio.get_running_loop()
    lock = use.locks.setdefault(id, asyncio.Lock()) if mount.sharing == "locked" else None
    if lock is not None:
        await lock.acquire()
    if mount.sharing == "private" and use.counts.get(id):
        id = secrets.token_hex(13)[:25]
    use.counts[id] = use.counts.get(id, 0) + 1

    def give_back() -> None:
        use.counts[id] -= 1
        if not use.counts[id]:
            del use.counts[id]
        if lock is not None:
            lock.release()

    try:
        path = await asyncio.to_thread(_open, engine, id, key, mount, base)
    except BaseException:
        give_back()
        raise
    return Holder(path, lambda: _in_loop(loop, give_back))


def build_cache(engine: Engine) -> list[BuildCacheRecord]:
    """Every cache there is. Blocks."""
    found = []
    for directory in _directories(engine):
        record = _read(directory)
        if record is None:
            continue
        found.append(
            BuildCacheRecord(
                ID=directory.name,
                Description=f"cached mount {record.target} from exec",
                InUse=directory.name in engine.cache_mounts.counts,
                Size=tree_size(directory / "data"),
                CreatedAt=record.created,
                LastUsedAt=record.used or None,
                UsageCount=record.count,
            )
        )
    return sorted(found, key=lambda each: each.CreatedAt)


@dataclass(frozen=True)
class PruneLimits:
    """How far to prune, in bytes; 0 is no limit. Without the last two, everything above the first goes."""

    reserved_space: int = 0
    """What caches may take in any case."""
    max_used_space: int = 0
    """Prune while they take more …"""
    min_free_space: int = 0
    """… or the disk has less left."""

    def exceeded(self, total: int, root: Path) -> bool:
        """Whether to go on, with caches of `total` bytes."""
        if total <= self.reserved_space > 0:
            return False
        if not self.max_used_space and not self.min_free_space:
            return True
        if 0 < self.max_used_space < total:
            return True
        return self.min_free_space > 0 and shutil.disk_usage(root).free < self.min_free_space


async def build_prune(
    engine: Engine, filters: Filters, limits: PruneLimits | None = None
) -> BuildCachePruneReport:
    """POST /build/prune: remove caches that no step uses, the longest unused first.

    Raises InvalidParameter.
    """
    limits = limits or PruneLimits()
    check_filters(filters, _FILTERS)
    await asyncio.to_thread(_finish_removals, engine)
    found = await asyncio.to_thread(build_cache, engine)
    total = sum(each.Size for each in found)
    report = BuildCachePruneReport()
    for each in sorted(found, key=lambda each: each.LastUsedAt or ""):
        if not limits.exceeded(total, engine.data_root):
            break
        if each.ID in engine.cache_mounts.counts or not _matches(each, filters):
            continue
        # Out of sight before anybody can ask for it again: nothing else runs in between.
        doomed = _root(engine) / f"{_REMOVING}{each.ID}"
        try:
            (_root(engine) / each.ID).rename(doomed)
        except FileNotFoundError:
            continue  # Somebody else prunes as well.
        await asyncio.to_thread(remove_tree, doomed)
        report.CachesDeleted = [*(report.CachesDeleted or []), each.ID]
        report.SpaceReclaimed += each.Size
        total -= each.Size
    engine.events.publish("builder", "prune", "", {"reclaimed": str(report.SpaceReclaimed)})
    return report


_FILTERS = frozenset(
    ("id", "parent", "type", "description", "inuse", "shared", "private", "until", "unused-for")
)


def _matches(record: BuildCacheRecord, filters: Filters) -> bool:
    for name, values in filters.items():
        if name == "id" and not any(record.ID.startswith(value) for value in values):
            return False
        if name == "type" and record.Type not in values:
            return False
        if name == "description" and record.Description not in values:
            return False
        if name in ("parent", "shared") or (name == "inuse" and "false" not in values):
            return False  # No cache mount has a parent, is shared, or is pruned while it is in use.
        if name in ("until", "unused-for"):
            used = parse_rfc3339(record.LastUsedAt or record.CreatedAt)
            if any(used > parse_moment(value) for value in values):
                return False
    return True


def _open(engine: Engine, id: str, key: str, mount: Mount, base: Path | None) -> Path:
    directory = _root(engine) / id
    data = directory / "data"
    if not data.exists():
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        fresh = directory / f"new-{secrets.token_hex(4)}"
        fresh.mkdir()
        if base is not None:
            _fill(engine, fresh, base, mount.source)
        fresh.chmod(0o755 if mount.mode is None else mount.mode)
        os.chown(fresh, *engine.layers.ids.to_host(mount.uid or 0, mount.gid or 0))
        try:
            fresh.rename(data)
        except OSError:
            remove_tree(fresh)  # Another step was faster.
    record = _read(directory) or _Record(key, mount.target, now())
    record.used, record.count = now(), record.count + 1
    write_atomically(directory / "record.json", msgspec.json.encode(record), durable=False)
    return data


def _fill(engine: Engine, target: Path, base: Path, source: str) -> None:
    from longshore.build.copying import CopyJob, perform_copy

    try:
        found = find_sources(base, [source or "."], [], ownership=True)
    except NotFound:
        return
    perform_copy(target, engine.layers.ids, CopyJob(found, "/", owner=None))


def _root(engine: Engine) -> Path:
    return engine.data_root / "builder" / "cache"


def _directories(engine: Engine) -> list[Path]:
    root = _root(engine)
    entries = list(root.iterdir()) if root.is_dir() else []
    return [entry for entry in entries if not entry.name.startswith(_REMOVING)]


def _finish_removals(engine: Engine) -> None:
    """Remove what a daemon that died had no time for."""
    for doomed in _root(engine).glob(f"{_REMOVING}*"):
        remove_tree(doomed)


def _read(directory: Path) -> _Record | None:
    try:
        return msgspec.json.decode((directory / "record.json").read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError):
        return None


def _in_loop(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(work)
