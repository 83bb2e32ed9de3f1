"""Limits of writable layers: `--storage-opt size=…`, by project quotas of the file system."""

from __future__ import annotations

from pathlib import Path

from longshore.errors import InvalidParameter
from longshore.linux.projects import DirectoryQuotas


class LayerQuotas:
    """Limits of the layers below one directory."""

    def __init__(self, home: Path) -> None:
        self._quotas = DirectoryQuotas(home, lambda home: (each for each in home.iterdir() if each.is_dir()))

    def check(self) -> None:
        """Raises OSError if the file system does not count by project."""
        self._quotas.check()

    def limit(self, layer: Path, size: int) -> None:
        """Let a new, empty layer take at most `size` bytes.

        Raises InvalidParameter, worded as dockerd words it, where the file system does not count by project.
        """
        try:
            self._quotas.limit(layer, size)
        except OSError as exc:
            raise InvalidParameter(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
            ) from exc
