"""Network namespaces: made, kept by a bind mount, entered by threads that are never used again.

`unshare` and `setns` change one thread. A thread that has changed must not go back to a pool, so each
call here gets a fresh one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import TypeVar

CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def unshare_network() -> None:
    """Move the calling thread into a new, empty network namespace. Raises OSError."""
    _check(_libc.unshare(CLONE_NEWNET))


def enter_network_namespace(fd: int) -> None:
    """Move the calling thread into the network namespace behind a file descriptor. Raises OSError."""
    _check(_libc.setns(fd, CLONE_NEWNET))


def create_network_namespace(path: Path, setup: Callable[[int], T], *, pid: int | None = None) -> T:
    """Keep a network namespace at `path` and return what `setup` returns, called inside it.

    The namespace is new, or that of process `pid`. `setup` gets a file descriptor of the namespace that is
    open only while it runs. When anything fails, nothing is left at `path`. Blocks; raises OSError.
    """

    def inside() -> T:
        if pid is None:
            unshare_network()
        else:
            with _opened(f"/proc/{pid}/ns/net") as fd:
                enter_network_namespace(fd)
        path.touch(mode=0o444, exist_ok=False)
        try:
            _check(_libc.mount(b"/proc/thread-self/ns/net", bytes(path), None, _MS_BIND, None))
            with _opened("/proc/thread-self/ns/net") as fd:
                return setup(fd)
        except BaseException:
            remove_network_namespace(path)
            raise

    return run_in_fresh_thread(inside)


def in_network_namespace(path: Path | str, call: Callable[[], T]) -> T:
    """Run `call` in a fresh thread inside the namespace kept at `path`, e.g. to open a socket there.

    Blocks until it is done; raises what it raises, and OSError if there is no such namespace.
    """

    def inside() -> T:
        with _opened(path) as fd:
            enter_network_namespace(fd)
        return call()

    return run_in_fresh_thread(inside)


def remove_network_namespace(path: Path) -> None:
    """Undo `create_network_namespace`; nothing happens if there is none. Raises OSError."""
    with suppress(OSError):
        while _libc.umount2(bytes(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
            pass
    path.unlink(missing_ok=True)


def is_network_namespace(path: Path) -> bool:
    """Whether a namespace is kept at `path`: the file is then on another file system than its directory."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise


def run_in_fresh_thread(call: Callable[[], T]) -> T:
    """Run `call` in a thread of its own that ends with it; raises what it raises."""
    outcome: list[T] = []
    failure: list[BaseException] = []
    context = copy_context()

    def run() -> None:
        try:
            outcome.append(context.run(call))
        except BaseException as exc:
            failure.append(exc)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


class _opened:  # noqa: N801 - reads as what it does
    def __init__(self, path: Path | str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
