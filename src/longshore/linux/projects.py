"""Limits of directories by project quotas: a project for each, and no number given out twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

from longshore.linux.quota import limit_project, project_of, set_project

_lock = threading.Lock()
_used: set[int] = set()
"""Numbers of this process's directories: those of layers and of volumes may lie on one file system."""


class DirectoryQuotas:
    """The projects of the directories below one, numbered upwards from its own, as in Docker.

    Every failure is an OSError: the file system does not count by project.
    """

    _everybody: ClassVar[WeakSet[DirectoryQuotas]] = WeakSet()

    def __init__(self, home: Path, directories: Callable[[Path], Iterable[Path]]) -> None:
        """`directories(home)` are those that may have a project already."""
        self._home = home
        self._directories = directories
        self._looked = False
        self._everybody.add(self)

    def check(self) -> None:
        """Raises OSError if the file system does not count by project."""
        # The first is kept for trying whether there are quotas at all.
        limit_project(self._home, project_of(self._home) + 1, 0)

    def limit(self, directory: Path, size: int) -> None:
        """Let a directory, empty or limited before, take at most `size` bytes with all that is in it."""
        base = project_of(self._home)
        project = project_of(directory)
        if project in (0, base):
            project = self._next(base + 1)
        limit_project(self._home, project, size)
        set_project(directory, project)

    def _next(self, reserved: int) -> int:
        with _lock:
            for each in self._everybody:
                each._look()
            project = max(_used | {reserved}) + 1
            _used.add(project)
            return project

    def _look(self) -> None:
        if self._looked or not self._home.is_dir():
            return
        for each in self._directories(self._home):
            with suppress(OSError):  # gone meanwhile, or on a file system that does not count
                _used.add(project_of(each))
        self._looked = True
