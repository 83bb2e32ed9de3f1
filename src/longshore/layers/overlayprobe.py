"""What overlayfs does on this kernel, with this file system below: found by trying, as dockerd does."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from typing import NamedTuple

from longshore.errors import System
from longshore.layers.driver import DriverNotSupported
from longshore.layers.overlaydiff import METACOPY
from longshore.layers.overlaymount import OverlayOptions, mount_overlay
from longshore.layers.remove import remove_tree
from longshore.linux.files import supports_d_type
from longshore.linux.mount import UnmountFlags, umount


class OverlayFeatures(NamedTuple):
    """`metacopy`: a change of owner or mode copies no data. `redirects`: directories can be renamed."""

    metacopy: bool
    redirects: bool


def probe_overlay(home: Path, filesystem: str, defaults: tuple[str, ...]) -> OverlayFeatures:
    """Mount overlayfs in the directory `home` and try. Raises System, worded as dockerd words it."""
    trial = home / f"check-overlayfs-support-{secrets.token_hex(8)}"
    try:
        for name in ("lower1", "lower2/d1", "upper", "work", "merged"):
            (trial / name).mkdir(parents=True)
        (trial / "lower1/f").write_bytes(b"f")
        options = OverlayOptions(
            home,
            [f"{trial.name}/lower2", f"{trial.name}/lower1"],
            *(str(trial / "upper"), str(trial / "work")),
            *(defaults, ""),
        )
        try:
            mount_overlay(options, trial / "merged")
        except OSError as exc:
            raise DriverNotSupported("overlay2", f"driver not supported: overlay2: {exc.strerror}") from None
        try:
            if not supports_d_type(trial):
                raise DriverNotSupported("overlay2", _no_d_type(filesystem))
            return _try(trial)
        finally:
            umount(trial / "merged", UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)
    finally:
        remove_tree(trial)


def _try(trial: Path) -> OverlayFeatures:
    (trial / "merged/f").chmod(0o600)
    metacopy = METACOPY in os.listxattr(trial / "upper/f")
    try:
        (trial / "merged/d1").rename(trial / "merged/d2")
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise System(f"failed to rename dir in merged directory: {exc}") from None
        return OverlayFeatures(metacopy, False)
    return OverlayFeatures(metacopy, True)


def _no_d_type(filesystem: str) -> str:
    remedy = {
        "xfs": " Reformat the filesystem with ftype=1 to enable d_type support.",
        "extfs": " Reformat the filesystem (or use tune2fs) with -O filetype flag to enable d_type support.",
    }.get(filesystem, "")
    return (
        f"overlay2: the backing {filesystem} filesystem is formatted without d_type support, which leads to "
        f"incorrect behavior.{remedy} Backing filesystems without d_type support are not supported."
    )
