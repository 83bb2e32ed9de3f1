"""The container's working directory, which is made where the image has none."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path

from longshore.containers.container import Container
from longshore.errors import InvalidParameter
from longshore.linux.openat import openat2

_HELD = os.O_PATH | os.O_DIRECTORY


def needs_working_directory(container: Container) -> bool:
    """Whether there is anything to make: a root file system always has its root."""
    return container.config.WorkingDir.strip("/") != ""


def setup_working_directory(rootfs: Path, working_dir: str, owner: tuple[int, int]) -> None:
    """Make what is missing of the path inside `rootfs`, mode 0755 (moby does it at creation).

    `owner` is the container's root, as the host numbers it. Links of the image are followed, but lead nowhere
    outside `rootfs`. Raises InvalidParameter if something else is in its place, OSError.
    """
    parts = [part for part in os.path.normpath(working_dir).split("/") if part]
    with ExitStack() as stack:
        root = os.open(rootfs, _HELD | os.O_CLOEXEC)
        stack.callback(os.close, root)
        parent = root
        for depth, name in enumerate(parts, 1):
            path = "/".join(parts[:depth])
            try:
                here = openat2(root, path, _HELD)
            except FileNotFoundError:
                here = _make(root, parent, name, path, working_dir, owner)
            except NotADirectoryError:
                raise InvalidParameter(f"Cannot mkdir: {working_dir} is not a directory") from None
            stack.callback(os.close, here)
            parent = here


def _make(root: int, parent: int, name: str, path: str, working_dir: str, owner: tuple[int, int]) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
        os.chmod(name, 0o755, dir_fd=parent)  # whatever the umask
        os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
    try:
        return openat2(root, path, _HELD)
    except FileNotFoundError:  # A link that leads nowhere.
        raise InvalidParameter(f"Cannot mkdir: {working_dir} is not a directory") from None
