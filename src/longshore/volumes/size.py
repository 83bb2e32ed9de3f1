"""How much a volume holds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def directory_size(path: Path) -> int:
    """Bytes of the files below `path`, hard links counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for directory, _, files in path.walk() if hasattr(path, "walk") else _walk(path):
        for file in files:
            with suppress(OSError):
                status = (directory / file).lstat()
                if status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                total += status.st_size
    return total


def _walk(path: Path) -> Iterable[tuple[Path, list[str], list[str]]]:
    for directory, directories, files in os.walk(path):
        yield Path(directory), directories, files
