"""The overlay2 graph driver: directories in Docker's layout, mounted by overlayfs.

`overlay2/<id>/` holds `diff` (the layer's own files), `link` (its short name in `overlay2/l`), `lower` (the
short names below it), `work`, `merged` (where it is mounted) and `committed` once something lies on top.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from longshore.config.options import parse_bytes
from longshore.errors import InvalidParameter, NotFound, System
from longshore.layers.driver import Change
from longshore.layers.extract import Extractor
from longshore.layers.idmap import IdMap
from longshore.layers.overlaydiff import NotPlain, is_plain, overlay_changes, plain_size
from longshore.layers.overlaymount import (
    OverlayOptions,
    detached_overlay,
    kernel_defaults,
    mount_overlay,
    reading_defaults,
)
from longshore.layers.overlayprobe import probe_overlay
from longshore.layers.quota import LayerQuotas
from longshore.layers.remove import remove_tree
from longshore.layers.treediff import changes_size, tree_changes
from longshore.linux.mount import UnmountFlags, filesystem_name, mountinfo, umount
from longshore.locks import NameLocks

MAX_DEPTH = 128
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_LINK_LENGTH = 26


class Overlay2:
    """See the module. `options` are `overlay2.key=value` as in dockerd's --storage-opt."""

    name = "overlay2"

    def __init__(self, root: Path, ids: IdMap, options: list[str]) -> None:
        self._home = root / "overlay2"
        self._ids = ids
        self._links = self._home / "l"
        self._counts: dict[str, int] = {}
        self._locks = NameLocks()
        self._quotas = LayerQuotas(self._home)
        self._size = _default_size(options)
        self._defaults = kernel_defaults()
        self._readable = reading_defaults()
        # Where no layers are yet, nothing may be left that looks as if there had been any.
        root.mkdir(mode=0o710, parents=True, exist_ok=True)
        trial = self._home if self._home.exists() else root
        self._filesystem = filesystem_name(trial)
        self._features = probe_overlay(trial, self._filesystem, self._defaults)
        for directory in (self._home, self._links):
            directory.mkdir(mode=0o710, parents=True, exist_ok=True)
            os.chown(directory, -1, ids.root[1])
        if self._size:
            self._check_quota()

    def status(self) -> list[tuple[str, str]]:
        return [
            ("Backing Filesystem", self._filesystem),
            ("Supports d_type", "true"),  # or it would not have come up
            ("Using metacopy", str(self._features.metacopy).lower()),
            ("Native Overlay Diff", str(not self._features.redirects).lower()),
            ("userxattr", "false"),
        ]

    def _check_quota(self) -> None:
        if self._filesystem != "xfs":
            raise System(
                f"Storage option overlay2.size only supported for backingFS XFS. Found {self._filesystem}"
            )
        try:
            self._quotas.check()
        except OSError as exc:
            raise System(
                "Storage option overlay2.size not supported. Filesystem does not support Project Quota: "
                f"{exc.strerror}"
            ) from exc

    def create(self, id: str, parent: str | None, storage_opt: dict[str, str] | None = None) -> None:
        size = 0 if storage_opt is None else self._size
        for key, value in (storage_opt or {}).items():
            if key.lower() != "size":
                raise InvalidParameter(f"Unknown option {key}")
            size = parse_bytes(value)
        lower = self._lower_of(parent) if parent is not None else ""
        home = self._home / id
        home.mkdir(mode=0o710)
        try:
            os.chown(home, -1, self._ids.root[1])
            if size:
                self._quotas.limit(home, size)  # before there is anything below
            self._make(home / "diff", 0o755)
            self._link(id, home)
            if parent is not None:
                self._make(home / "work", 0o700)
                (self._home / parent / "committed").touch(mode=0o600)
                (home / "lower").write_text(lower)
        except BaseException:
            self.remove(id)
            raise

    def extractor(self, id: str) -> Extractor:
        return Extractor(self._home / id / "diff", self._ids)

    def own_files(self, id: str) -> Path:
        return self._home / id / "diff"

    def populate(self, id: str, fill: Callable[[Path], None]) -> None:
        if not (self._home / id / "lower").exists():
            fill(self._home / id / "diff")
            return
        with detached_overlay(self._options(id)) as merged:
            if merged is not None:
                fill(merged)
                return
        mounted = self.get(id)
        try:
            fill(mounted)
        finally:
            self.put(id)

    def get(self, id: str, mount_label: str = "") -> Path:
        home = self._home / id
        with self._locks.hold(id):
            if not (home / "lower").exists():
                if not home.exists():
                    raise NotFound(f"stat {home}: no such file or directory")
                self._counts[id] = self._counts.get(id, 0) + 1
                return home / "diff"
            merged = home / "merged"
            if not self._counts.get(id) and not _is_mounted(merged):
                self._mount(id, merged, mount_label)
            self._counts[id] = self._counts.get(id, 0) + 1
            return merged

    def take_over(self, id: str, source: str) -> bool:
        theirs, ours = self._home / source / "diff", self._home / id / "diff"
        with self._locks.hold(source):
            if self._counts.get(source) or _is_mounted(self._home / source / "merged"):
                return False  # What still changes cannot become a layer.
            if self._features.redirects and not is_plain(theirs):
                return False  # Nor can what relies on the very layers below it.
            ours.rmdir()
            theirs.rename(ours)
            self._make(theirs, 0o755)
        self._make(ours, 0o755)
        return True

    def put(self, id: str) -> None:
        with self._locks.hold(id):
            count = self._counts.get(id, 0) - 1
            if count > 0:
                self._counts[id] = count
                return
            self._unmount(id)

    def mounted(self) -> set[str]:
        home, found = str(self._home) + "/", set()
        for point in mountinfo():
            if point.target.startswith(home) and point.target.endswith("/merged"):
                found.add(point.target[len(home) :].partition("/")[0])
        return found

    def unmount(self, id: str) -> None:
        with self._locks.hold(id):
            self._unmount(id)

    def remove(self, id: str) -> None:
        if not id or "/" in id or id in (".", "..", "l"):
            raise InvalidParameter(f"invalid id: {id!r}")
        home = self._home / id
        with self._locks.hold(id):
            self._unmount(id)
            try:
                link = (home / "link").read_text()
            except FileNotFoundError:
                link = ""
            if link and "/" not in link:
                (self._links / link).unlink(missing_ok=True)
            # Under a name that is nobody's, so that a crash leaves no layer that looks whole.
            doomed = self._home / f"{id.removesuffix('-removing')}-removing"
            with suppress(FileNotFoundError):
                home.rename(doomed)
            remove_tree(doomed)

    def ids(self) -> set[str]:
        return {entry.name for entry in self._home.iterdir() if entry.name != "l"}

    @contextmanager
    def diff(self, id: str, parent: str | None) -> Iterator[tuple[Path, list[Change]]]:
        upper = self._home / id / "diff"
        with ExitStack() as views:
            below = views.enter_context(self.view(parent)) if parent is not None else None
            try:
                changes = overlay_changes(upper, below)
            except NotPlain:
                upper = views.enter_context(self.view(id))
                changes = tree_changes(upper, below)
            yield upper, changes

    @contextmanager
    def view(self, id: str) -> Iterator[Path]:
        home = self._home / id
        if not (home / "lower").exists():
            yield home / "diff"
            return
        with ExitStack() as stack:
            root = _open_if_mounted(home / "merged")
            if root is not None:
                stack.callback(os.close, root)
                yield Path(f"/proc/self/fd/{root}")
                return
            merged = stack.enter_context(detached_overlay(self._options(id).to_read(self._readable)))
            if merged is None:
                merged = self.get(id)
                stack.callback(self.put, id)
            yield merged

    def size(self, id: str, parent: str | None) -> int:
        try:
            return plain_size(self._home / id / "diff")
        except NotPlain:
            with self.diff(id, parent) as (root, changes):
                return changes_size(root, changes)

    def metadata(self, id: str) -> dict[str, str]:
        home = self._home / id
        data = {}
        lowers = self._lower_paths(id)
        if lowers:
            data["LowerDir"] = ":".join(map(str, lowers))
        data |= {
            "MergedDir": str(home / "merged"),
            "UpperDir": str(home / "diff"),
            "WorkDir": str(home / "work"),
        }
        return data

    def _mount(self, id: str, merged: Path, mount_label: str) -> None:
        options = self._options(id, mount_label)
        self._make(merged, 0o700)
        try:
            mount_overlay(options, merged)
            # overlayfs makes work/work as the mounter; in a user namespace its root must own it.
            if options.upper:
                os.chown(self._home / id / "work" / "work", *self._ids.root)
        except BaseException:
            self._unmount(id)
            raise

    def _unmount(self, id: str) -> None:
        self._counts.pop(id, None)
        merged = self._home / id / "merged"
        with suppress(FileNotFoundError):
            while _is_mounted(merged):
                umount(merged, UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)
            merged.rmdir()

    def _options(self, id: str, mount_label: str = "") -> OverlayOptions:
        home = self._home / id
        lowers = [name for name in (home / "lower").read_text().split(":") if name]
        if (home / "committed").exists():
            # Others lie on top of it: it must not change any more.
            link = (home / "link").read_text()
            return OverlayOptions(self._home, [f"l/{link}", *lowers], "", "", self._defaults, mount_label)
        return OverlayOptions(
            self._home, lowers, str(home / "diff"), str(home / "work"), self._defaults, mount_label
        )

    def _lower_of(self, parent: str) -> str:
        home = self._home / parent
        try:
            lowers = ["l/" + (home / "link").read_text()]
        except FileNotFoundError:
            raise NotFound(f"parent layer {parent} does not exist") from None
        if (home / "lower").exists():
            lowers += [name for name in (home / "lower").read_text().split(":") if name]
        if len(lowers) > MAX_DEPTH:
            raise InvalidParameter("max depth exceeded")
        return ":".join(lowers)

    def _lower_paths(self, id: str) -> list[Path]:
        try:
            names = (self._home / id / "lower").read_text().split(":")
        except FileNotFoundError:
            return []
        return [(self._home / name).resolve() for name in names if name]

    def _link(self, id: str, home: Path) -> None:
        link = "".join(secrets.choice(_ALPHABET) for _ in range(_LINK_LENGTH))
        # Noted before it is made: removing the layer after a crash in between must find it.
        (home / "link").write_text(link)
        (self._links / link).symlink_to(f"../{id}/diff")

    def _make(self, directory: Path, mode: int) -> None:
        directory.mkdir(exist_ok=True)
        directory.chmod(mode)
        os.chown(directory, *self._ids.root)


def _is_mounted(merged: Path) -> bool:
    try:
        there = merged.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(there.st_mode) and there.st_dev != merged.parent.lstat().st_dev


def _default_size(options: list[str]) -> int:
    """What `overlay2.size` says, in bytes; 0 for no limit. Raises System for options there are not."""
    size = 0
    for option in options:
        key, _, value = option.partition("=")
        if key.lower() == "overlay2.size":
            size = parse_bytes(value or "0")
        elif key.lower() not in ("overlay2.override_kernel_check", "overlay.override_kernel_check"):
            raise System(f"overlay2: unknown option {key}")
    return size


def _open_if_mounted(merged: Path) -> int | None:
    """A descriptor of what is mounted at `merged`, which stays if it is unmounted meanwhile."""
    try:
        root = os.open(merged, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if os.fstat(root).st_dev != merged.parent.lstat().st_dev:
        return root
    os.close(root)
    return None
