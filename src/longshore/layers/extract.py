"""Writing the entries of an archive into a directory, and nowhere else.

Archives come from strangers. Every parent is resolved with the directory as its root (RESOLVE_IN_ROOT), the
last component is never followed, and what stands in the way is removed rather than written through.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from posixpath import normpath

from longshore.errors import InvalidParameter
from longshore.layers.idmap import IdMap
from longshore.layers.remove import remove_tree
from longshore.layers.tarstream import (
    BLOCK_DEVICE,
    CHAR,
    DIRECTORY,
    FIFO,
    LINK,
    REGULAR,
    SYMLINK,
    TarEntry,
)
from longshore.linux.files import chmod_nofollow
from longshore.linux.openat import openat2

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
OVERLAY_OPAQUE = "trusted.overlay.opaque"

_MOST_DEVICES = 65_536
"""Device nodes in one archive; no honest image has more than a /dev full of them."""

_DEEPEST_IMPLIED = 256
_KEPT_DIRECTORIES = 128
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Extractor:
    """Applies entries to the directory `root`. Use as a context manager: its end sets directory times.

    With `overlay_whiteouts`, whiteouts become overlayfs's own (a 0/0 device, an opaque attribute); without,
    they remove what they hide.
    """

    def __init__(self, root: str | os.PathLike[str], ids: IdMap, *, overlay_whiteouts: bool = True) -> None:
        self._root = os.open(root, _OPEN_DIRECTORY)
        self._ids = ids
        self._overlay = overlay_whiteouts
        self._directories: dict[str, int] = {}
        self._times: dict[str, int] = {}
        self._unpacked: set[str] = set()
        self._devices = 0
        self.size = 0
        """Bytes of all files, each counted once whatever its links; as `directory.Size` of moby counts."""

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._set_directory_times()
        finally:
            self._forget_directories()
            os.close(self._root)

    def add(self, entry: TarEntry, content: Iterator[bytes] | bytes) -> bool:
        """Write one entry. False if it left no file of that name behind: whiteouts and the root itself.

        Raises InvalidParameter if the entry is not acceptable.
        """
        name = clean(entry.name)
        if name == ".":
            return False
        parent_name, _, base = name.rpartition("/")
        if base.startswith(WHITEOUT):
            self._whiteout(entry, parent_name, base)
            return False
        parent = self._directory(parent_name)
        try:
            self._create(entry, name, parent, base, content)
        except FileExistsError:
            self._make_room(entry, name, parent, base)
            self._create(entry, name, self._directory(parent_name), base, content)
        if not self._overlay:
            self._unpacked.add(name)
        return True

    def _create(
        self, entry: TarEntry, name: str, parent: int, base: str, content: Iterator[bytes] | bytes
    ) -> None:
        kind = entry.type
        if kind == REGULAR:
            self._file(entry, parent, base, content)
        elif kind == DIRECTORY:
            self._make_directory(entry, name, parent, base)
        elif kind == SYMLINK:
            os.symlink(entry.linkname, base, dir_fd=parent)
            self.size += len(os.fsencode(entry.linkname))
            self._dress(entry, parent, base)
        elif kind == LINK:
            self._link(entry, parent, base)
        elif kind in (CHAR, BLOCK_DEVICE, FIFO):
            self._node(entry, parent, base)
        else:
            raise InvalidParameter(f"unhandled tar header type {kind[0]}")

    def begin_file(self, entry: TarEntry) -> int:
        """Make the regular file of `entry`, whose content the caller writes; the descriptor to write to.

        It ends with `finish_file`. Raises FileExistsError, InvalidParameter.
        """
        parent, _, base = clean(entry.name).rpartition("/")
        return os.open(base, _NEW_FILE, 0o600, dir_fd=self._directory(parent))

    def finish_file(self, entry: TarEntry, file: int) -> None:
        """Give a file that is written its owner, mode, attributes and times. Closes nothing."""
        os.fchown(file, *self._ids.to_host(entry.uid, entry.gid))
        os.fchmod(file, entry.mode)
        if entry.xattrs:
            _set_xattrs(file, entry)
        os.utime(file, ns=(entry.mtime, entry.mtime))

    def _file(self, entry: TarEntry, parent: int, base: str, content: Iterator[bytes] | bytes) -> None:
        file = os.open(base, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            if entry.sparse is not None:
                _write_sparse(file, entry, content)
            elif isinstance(content, bytes):
                if content:
                    write_all(file, content)
            else:
                for chunk in content:
                    write_all(file, chunk)
            self.size += entry.real_size
            self.finish_file(entry, file)
        finally:
            os.close(file)

    def _make_directory(self, entry: TarEntry, name: str, parent: int, base: str) -> None:
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
                raise
        directory = os.open(base, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            os.fchown(directory, *self._ids.to_host(entry.uid, entry.gid))
            os.fchmod(directory, entry.mode)
            if entry.xattrs:
                _set_xattrs(directory, entry)
        except BaseException:
            os.close(directory)
            raise
        self._times[name] = entry.mtime
        self._keep(name, directory)

    def _link(self, entry: TarEntry, parent: int, base: str) -> None:
        target = clean(entry.linkname, f'invalid hardlink "{entry.name}" -> "{entry.linkname}"')
        where, _, target_base = target.rpartition("/")
        try:
            source = self._directory(where, create=False)
            os.link(target_base, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as exc:
            raise InvalidParameter(f"link {entry.linkname} {entry.name}: {exc.strerror}") from None

    def _node(self, entry: TarEntry, parent: int, base: str) -> None:
        self._devices += entry.type != FIFO
        if self._devices > _MOST_DEVICES:
            raise InvalidParameter(f"archive holds more than {_MOST_DEVICES} device nodes")
        kind = {CHAR: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}[entry.type]
        os.mknod(base, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
        self._dress(entry, parent, base)

    def _dress(self, entry: TarEntry, parent: int, base: str) -> None:
        """Owner, mode and times of what must not be opened."""
        uid, gid = self._ids.to_host(entry.uid, entry.gid)
        os.chown(base, uid, gid, dir_fd=parent, follow_symlinks=False)
        if entry.type != SYMLINK:
            chmod_nofollow(base, entry.mode, parent)
        if entry.xattrs:
            _set_xattrs(f"/proc/self/fd/{parent}/{base}", entry)
        os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _whiteout(self, entry: TarEntry, parent_name: str, base: str) -> None:
        if base != OPAQUE and base.startswith(WHITEOUT + WHITEOUT):
            return  # aufs's own records, of no meaning here
        hidden = base[len(WHITEOUT) :]
        if hidden in ("", ".", ".."):
            raise InvalidParameter(f"invalid whiteout name: {entry.name}")
        parent = self._directory(parent_name)
        if base == OPAQUE:
            if self._overlay:
                os.setxattr(parent, OVERLAY_OPAQUE, b"y")
            else:
                self._hide_all_below(parent_name, parent)
        elif self._overlay:
            try:
                os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
            except FileExistsError:
                return  # this very layer puts something new in its place
            os.chown(hidden, *self._ids.to_host(entry.uid, entry.gid), dir_fd=parent, follow_symlinks=False)
        else:
            name = f"{parent_name}/{hidden}" if parent_name else hidden
            if name not in self._unpacked:
                self._forget_directories()
                remove_tree(hidden, dir_fd=self._directory(parent_name))

    def _hide_all_below(self, name: str, directory: int) -> None:
        prefix = f"{name}/" if name else ""
        kept = {path[len(prefix) :].split("/", 1)[0] for path in self._unpacked if path.startswith(prefix)}
        for child in os.listdir(directory):
            if child not in kept:
                remove_tree(child, dir_fd=directory)
        for child in [path for path in self._directories if path.startswith(prefix)]:
            os.close(self._directories.pop(child))

    def _make_room(self, entry: TarEntry, name: str, parent: int, base: str) -> None:
        there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISREG(there.st_mode) and there.st_nlink == 1:
            self.size -= there.st_size
        remove_tree(base, dir_fd=parent)
        self._forget_directories()
        for path in [path for path in self._times if path == name or path.startswith(f"{name}/")]:
            del self._times[path]

    def _directory(self, name: str, create: bool = True) -> int:
        """A descriptor of the directory, made with its parents if it is missing and `create`."""
        if not name:
            return self._root
        directory = self._directories.pop(name, None)
        if directory is not None:
            # Last in line to be closed again: a caller may hold two of them at once.
            self._directories[name] = directory
            return directory
        try:
            directory = openat2(self._root, name, _OPEN_DIRECTORY)
        except OSError as exc:
            if exc.errno != errno.ENOENT or not create:
                if exc.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                    raise InvalidParameter(f"mkdir {name}: {exc.strerror}") from None
                raise
            directory = self._make_missing(name)
        self._keep(name, directory)
        return directory

    def _make_missing(self, name: str) -> int:
        if name.count("/") > _DEEPEST_IMPLIED:
            raise InvalidParameter(f"mkdir {name}: file name too long")
        above, _, base = name.rpartition("/")
        parent = self._directory(above)
        try:
            os.mkdir(base, 0o755, dir_fd=parent)
        except FileExistsError:
            # openat2 found nothing behind it: a symbolic link to nowhere, as seen from the root.
            raise InvalidParameter(f"mkdir {name}: file exists") from None
        directory = os.open(base, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        os.fchmod(directory, 0o755)
        os.fchown(directory, *self._ids.root)
        return directory

    def _keep(self, name: str, directory: int) -> None:
        if len(self._directories) >= _KEPT_DIRECTORIES:
            oldest = next(iter(self._directories))
            os.close(self._directories.pop(oldest))
        previous = self._directories.pop(name, None)
        if previous is not None:
            os.close(previous)
        self._directories[name] = directory

    def _forget_directories(self) -> None:
        for directory in self._directories.values():
            os.close(directory)
        self._directories.clear()

    def _set_directory_times(self) -> None:
        for name, mtime in self._times.items():
            try:
                directory = openat2(self._root, name, _OPEN_DIRECTORY)
            except OSError:
                continue  # replaced by a later entry
            try:
                os.utime(directory, ns=(mtime, mtime))
            except OverflowError:
                raise InvalidParameter(f"archive/tar: invalid tar header: {name}: mtime") from None
            finally:
                os.close(directory)


def clean(name: str, complaint: str = "") -> str:
    """The name as a path below the root, `.` for the root itself.

    Raises InvalidParameter if `..` leads out. A leading slash means the root, as to Docker.
    """
    if name and name[0] != "/" and "//" not in name and "./" not in name and name[-1] not in "/.":
        return name
    path = normpath(name.lstrip("/") or ".")
    if path == ".." or path.startswith("../"):
        raise InvalidParameter(complaint or f'"{name}" is outside of "/"')
    return path


def write_all(file: int, chunk: bytes) -> None:
    """write(2), until all is written."""
    written = os.write(file, chunk)
    while written < len(chunk):
        chunk = chunk[written:]
        written = os.write(file, chunk)


def _write_sparse(file: int, entry: TarEntry, content: Iterator[bytes] | bytes) -> None:
    chunks = iter((content,)) if isinstance(content, bytes) else content
    chunk = b""
    os.ftruncate(file, entry.real_size)
    for offset, length in entry.sparse or ():
        os.lseek(file, offset, os.SEEK_SET)
        left = length
        while left:
            chunk = chunk or next(chunks)
            part = chunk[:left]
            write_all(file, part)
            chunk, left = chunk[len(part) :], left - len(part)


def _set_xattrs(target: int | str, entry: TarEntry) -> None:
    follow = {} if isinstance(target, int) else {"follow_symlinks": False}
    for name, value in entry.xattrs.items():
        if name.startswith(("trusted.overlay.", "user.overlay.")):
            continue  # would make overlayfs look elsewhere; never an image's business
        try:
            os.setxattr(target, name, value, **follow)
        except OSError as exc:
            # Docker's rule: attributes the file system lacks, or of user.* where not allowed, are left out.
            if exc.errno != errno.ENOTSUP and not (exc.errno == errno.EPERM and name.startswith("user.")):
                raise
