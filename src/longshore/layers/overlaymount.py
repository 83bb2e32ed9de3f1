"""Mounting overlayfs, also with more lower directories than fit into a page of options."""

from __future__ import annotations

import errno
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from longshore.linux.host import kernel_number
from longshore.linux.mount import attach, detached, mount, unshare_working_directory

_PARAMETERS = Path("/sys/module/overlay/parameters")

_LONGEST_VALUE = 255
"""fsconfig(2) takes no longer strings."""
_refused = threading.Event()
"""This kernel does not take lower directories one by one: it would log an error each time it is asked to."""


class OverlayOptions(NamedTuple):
    """`lowers` are relative to `home`, topmost first; without `upper` the mount is read-only."""

    home: Path
    lowers: list[str]
    upper: str
    work: str
    defaults: tuple[str, ...]
    label: str

    def data(self, relative: bool) -> str:
        """The options as mount(2) takes them."""
        lowers = self.lowers if relative else [f"{self.home}/{lower}" for lower in self.lowers]
        parts = [*self.defaults, "lowerdir=" + ":".join(lowers)]
        if self.upper:
            parts += [f"upperdir={self.upper}", f"workdir={self.work}"]
        if self.label:
            parts.append(f'context="{self.label}"')
        return ",".join(parts)

    def to_read(self, defaults: tuple[str, ...]) -> OverlayOptions:
        """The same file system, read-only, without a claim on its upper directory."""
        lowers = [str(Path(self.upper).relative_to(self.home)), *self.lowers] if self.upper else self.lowers
        return OverlayOptions(self.home, lowers, "", "", defaults, "")


def mount_overlay(options: OverlayOptions, target: Path) -> None:
    """Mount at `target`. Raises OSError.

    mount(2) if the options fit a page; else the new mount calls, which take the lower directories one by
    one (Linux 6.8); before that, mount(2) with short relative paths.
    """
    data = options.data(relative=False)
    if len(data) < os.sysconf("SC_PAGESIZE"):
        mount("overlay", target, "overlay", data=data)
        return
    with detached_overlay(options) as root:
        if root is not None:
            attach(int(root.name), target)
            return
    _mount_relative(options, target)


@contextmanager
def detached_overlay(options: OverlayOptions) -> Iterator[Path | None]:
    """The overlay, mounted nowhere: yields a path by which this process reaches it, named for the
    descriptor it is open at. None if the kernel cannot do that with these options."""
    settings: list[tuple[str, str | None]] = []
    for option in options.defaults:
        key, equals, value = option.partition("=")
        settings.append((key, value if equals else None))
    settings += [("lowerdir+", f"{options.home}/{lower}") for lower in options.lowers]
    if options.upper:
        settings += [("upperdir", options.upper), ("workdir", options.work)]
    if options.label:
        settings.append(("context", options.label))
    with ExitStack() as stack:
        root = None
        if not _refused.is_set() and all(len(value or "") <= _LONGEST_VALUE for _, value in settings):
            try:
                root = stack.enter_context(detached("overlay", settings, "overlay"))
            except OSError as exc:
                if exc.errno not in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
                    raise
                if kernel_number(platform.release()) < (6, 8):
                    _refused.set()
        yield None if root is None else Path(f"/proc/self/fd/{root}")


def kernel_defaults() -> tuple[str, ...]:
    """Options for what is written to: the kernel's own, as in Docker, but for `index`, which layers in use by
    several containers do not bear."""
    return ("index=off",) if (_PARAMETERS / "index").exists() else ()


def reading_defaults() -> tuple[str, ...]:
    """Options for what is only read: follow what was written, whatever the kernel's settings are now."""
    follow = [
        option
        for parameter, option in (("redirect_dir", "redirect_dir=follow"), ("metacopy", "metacopy=on"))
        if (_PARAMETERS / parameter).exists()
    ]
    return (*kernel_defaults(), *follow)


def _mount_relative(options: OverlayOptions, target: Path) -> None:
    """In a thread with a working directory of its own, which ends with it."""
    failure: list[OSError] = []

    def run() -> None:
        try:
            unshare_working_directory()
            os.chdir(options.home)
            mount("overlay", target, "overlay", data=options.data(relative=True))
        except OSError as exc:
            failure.append(exc)

    thread = threading.Thread(target=run, name="overlay-mount")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
