"""Filling an empty volume with what the image has at its mount point."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path

from longshore.linux import xattr
from longshore.linux.files import chmod_nofollow
from longshore.linux.openat import openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 30
_DEEPEST = 500
"""Directories in one another; each takes two descriptors while it is copied."""


def has_directory(rootfs: Path, destination: str) -> bool:
    """Whether there is anything to copy up: a directory at `destination` of the image. Raises OSError."""
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(openat2(root, destination, os.O_PATH | os.O_DIRECTORY))
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    finally:
        os.close(root)
    return True


def copy_up(volume: Path, rootfs: Path, destination: str) -> bool:
    """Copy `destination` of the image (a path inside `rootfs`) into `volume` if that is empty.

    Owners, modes, times, extended attributes, links, devices and sockets' places are kept. Links in the image
    lead nowhere outside `rootfs`, and none is followed below the destination. Returns whether anything was
    copied. Raises OSError; a volume that could not be filled completely is left as far as it came.
    """
    with ExitStack() as stack:
        root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        try:
            source = openat2(root, destination, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
        stack.callback(os.close, source)
        target = os.open(volume, _DIRECTORY)
        stack.callback(os.close, target)
        if os.listdir(target):  # noqa: PTH208 - a descriptor
            return False
        _copy_content(source, target, "", _Links(target))
        _copy_metadata(source, target, os.fstat(source))
        return True


class _Links:
    """Files with several names that were copied, so that the other names become links again."""

    def __init__(self, volume: int) -> None:
        self._volume = volume
        self._copied: dict[tuple[int, int], str] = {}

    def remember(self, status: os.stat_result, path: str) -> None:
        """`path`, from the volume's root, is the copy."""
        self._copied[status.st_dev, status.st_ino] = path

    def again(self, status: os.stat_result, target: int, name: str) -> bool:
        """Link to the copy, if there is one."""
        path = self._copied.get((status.st_dev, status.st_ino))
        if path is None:
            return False
        os.link(path, name, src_dir_fd=self._volume, dst_dir_fd=target, follow_symlinks=False)
        return True


def _copy_content(source: int, target: int, where: str, links: _Links) -> None:
    # Descriptors all the way: a directory renamed or replaced by a link meanwhile cannot lead elsewhere.
    if where.count("/") > _DEEPEST:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), f"{where[:64]}…")
    for name in sorted(os.listdir(source)):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            below, inside = os.open(name, _DIRECTORY, dir_fd=source), -1
            try:
                inside = os.open(name, _DIRECTORY, dir_fd=target)
                _copy_content(below, inside, f"{where}{name}/", links)
                _copy_metadata(below, inside, status)
            finally:
                os.close(below)
                if inside >= 0:
                    os.close(inside)
            continue
        if status.st_nlink > 1 and links.again(status, target, name):
            continue
        _copy_file(source, target, name, status)
        if status.st_nlink > 1:
            links.remember(status, f"{where}{name}")


def _copy_file(source: int, target: int, name: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            writer = os.open(name, flags, 0o600, dir_fd=target)
            try:
                _copy_bytes(reader, writer)
                _copy_metadata(reader, writer, status)
            finally:
                os.close(writer)
        finally:
            os.close(reader)
    elif not stat.S_ISSOCK(status.st_mode):
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        chmod_nofollow(name, stat.S_IMODE(status.st_mode), target)


def _copy_bytes(reader: int, writer: int) -> None:
    try:
        while os.copy_file_range(reader, writer, _CHUNK):
            pass
    except OSError as exc:
        # From one kind of file system to another, as from overlayfs to what carries the volumes, the kernel
        # may refuse (copy_file_range(2), EXDEV). Both files are where the last success left them.
        if exc.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while os.sendfile(writer, reader, None, _CHUNK):
            pass


def _copy_metadata(source: int, target: int, status: os.stat_result) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in xattr.list_(source):
        # overlayfs keeps its own notes in trusted.*; they mean nothing in a volume.
        if not name.startswith("trusted.overlay."):
            value = xattr.get(source, name)
            if value is not None:
                xattr.set_(target, name, value)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
