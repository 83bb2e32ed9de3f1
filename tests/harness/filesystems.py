"""File systems in files, for data that are to lie on another than the machine's."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

DOCKER_NAMES = {"ext4": "extfs"}
"""What Docker calls file systems, where it is not their name."""

_KINDS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], 32),
    "xfs": (["mkfs.xfs", "-q", "-f"], 300),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], 128),
}
"""How each is made, and how many MB it has at least."""


@contextmanager
def filesystem(kind: str, where: Path, *options: str) -> Iterator[Path]:
    """A directory on a new file system of this kind; skips where it cannot be had."""
    place = where / kind
    place.mkdir()
    with ExitStack() as undo:
        if kind == "tmpfs":
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
            undo.callback(subprocess.run, ["umount", place], check=True)
        else:
            command, size = _KINDS[kind]
            if shutil.which(command[0]) is None:
                pytest.skip(f"{command[0]} is not installed")
            disk = where / f"{kind}.img"
            with disk.open("wb") as file:
                file.truncate(size << 20)
            subprocess.run([*command, *options, disk], check=True, capture_output=True)
            done = subprocess.run(["mount", "-t", kind, "-o", "loop", disk, place], capture_output=True)
            if done.returncode:
                pytest.skip(f"this kernel does not mount {kind}: {done.stderr.decode().strip()}")
            undo.callback(subprocess.run, ["umount", place], check=True)
        yield place
