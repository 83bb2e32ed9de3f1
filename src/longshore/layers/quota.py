"""Limits of writable layers: `--storage-opt size=…`, by project quotas of the file system."""

from __future__ import annotations

import threading
from pathlib import Path

from longshore.errors import InvalidParameter
from longshore.linux.quota import limit_project, project_of, set_project


class LayerQuotas:
    """The projects of the layers below one directory, numbered upwards from its own, as in Docker."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._last = -1
        """The highest number in use; -1 before anybody looked."""

    def check(self) -> None:
        """Raises OSError if the file system does not count by project."""
        limit_project(self._home, project_of(self._home) + 1, 0)

    def limit(self, layer: Path, size: int) -> None:
        """Let a new, empty layer take at most `size` bytes.

        Raises InvalidParameter, worded as dockerd words it, where the file system does not count by project.
        """
        try:
            project = self._next()
            limit_project(self._home, project, size)
            set_project(layer, project)
        except OSError as exc:
            raise InvalidParameter(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
            ) from exc

    def _next(self) -> int:
        with self._lock:
            if self._last < 0:
                layers = (entry for entry in self._home.iterdir() if entry.is_dir())
                self._last = max(map(project_of, (self._home, *layers)))
                # The first is kept for trying whether there are quotas at all.
                self._last = max(self._last, project_of(self._home) + 1)
            self._last += 1
            return self._last
