"""Extracting an archive into a directory of a file system in use, as `docker cp` does."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from longshore.errors import System
from longshore.layers.extract import Extractor, clean
from longshore.layers.idmap import IdMap
from longshore.layers.tarstream import DIRECTORY, LINK, TarEntry


class CopyExtractor(Extractor):
    """Applies entries below `target`, an absolute path inside `root`; nothing in a name is a whiteout.

    `owner`: user and group that every file is given. With `no_overwrite` a directory does not take the
    place of something else, nor the reverse.
    """

    def __init__(
        self,
        root: Path,
        ids: IdMap,
        target: str,
        *,
        owner: tuple[int, int] | None = None,
        no_overwrite: bool = False,
    ) -> None:
        super().__init__(root, ids, overlay_whiteouts=True)
        self._target = target.strip("/")
        self._owner = owner
        self._no_overwrite = no_overwrite

    def add(self, entry: TarEntry, content: Iterator[bytes] | bytes) -> bool:
        """Write one entry. Raises InvalidParameter if it leads out, System if it may not replace."""
        inside = clean(entry.name)
        if inside == ".":
            return False
        name = self._below(inside)
        changed = replace(entry, name=name)
        if entry.type == LINK:
            told = f'invalid hardlink "{entry.name}" -> "{entry.linkname}"'
            changed.linkname = self._below(clean(entry.linkname, told))
        if self._owner is not None:
            changed.uid, changed.gid = self._owner
        parent_name, _, base = name.rpartition("/")
        parent = self._directory(parent_name)
        self._check(changed, parent, base)
        try:
            self._create(changed, name, parent, base, content)
        except FileExistsError:
            self._make_room(changed, name, parent, base)
            self._create(changed, name, self._directory(parent_name), base, content)
        return True

    def _below(self, name: str) -> str:
        return f"{self._target}/{name}" if self._target else name

    def _check(self, entry: TarEntry, parent: int, base: str) -> None:
        if not self._no_overwrite:
            return
        try:
            there = stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        if there and entry.type != DIRECTORY:
            raise System(f'cannot overwrite directory "/{entry.name}" with non-directory "/{self._target}"')
        if not there and entry.type == DIRECTORY:
            raise System(f'cannot overwrite non-directory "/{entry.name}" with directory "/{self._target}"')
