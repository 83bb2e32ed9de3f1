"""A container's files as the container sees them, volumes included, whether it runs or not.

A running container is entered through its first process's root. For one that rests, its volumes are bound
into its root file system in a mount namespace that nobody else sees and that goes with the view.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from stat import S_ISDIR

from longshore.containers.container import Container
from longshore.containers.record import RecordMountPoint
from longshore.engine.engine import Engine
from longshore.engine.image_mounts import mount_image, unmount_image
from longshore.errors import Conflict
from longshore.layers.extract import Extractor
from longshore.layers.idmap import IdMap
from longshore.layers.tarstream import DIRECTORY, REGULAR, TarEntry
from longshore.linux.mount import MountFlags, mount
from longshore.linux.namespaces import run_in_fresh_thread
from longshore.linux.openat import openat2
from longshore.types.mount import Mount

_CLONE_NEWNS = 0x20000
_MS_SLAVE = 1 << 19
_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def container_root(engine: Engine, container: Container) -> Iterator[int]:
    """A descriptor of the container's root directory, for openat2 with RESOLVE_IN_ROOT. Blocks.

    Raises Conflict if the container ends just now, OSError, NotFound for a volume that is gone.
    """
    with ExitStack() as held:
        pid = container.state.Pid
        root = _running_root(container, pid) if pid else _resting_root(engine, container, held)
        held.callback(os.close, root)
        yield root


def _running_root(container: Container, pid: int) -> int:
    try:
        root = os.open(f"/proc/{pid}/root", _OPEN)
    except (FileNotFoundError, ProcessLookupError):
        raise Conflict(f"container {container.id} is not running") from None
    if container.state.Pid != pid:
        # The number may be another process's by now.
        os.close(root)
        raise Conflict(f"container {container.id} is not running")
    return root


def _resting_root(engine: Engine, container: Container, held: ExitStack) -> int:
    layer = engine.layers.get_rw_layer(container.id)
    rootfs = layer.mount(container.record.MountLabel)
    held.callback(layer.unmount)
    points = sorted(container.mount_points.values(), key=lambda point: point.Destination)
    # What is in memory alone is gone, and what lies below it in the image was never to be seen.
    sources = [(point, _source(engine, container, point, held)) for point in points if point.Type != "tmpfs"]

    def inside() -> tuple[int, int]:
        if _libc.unshare(_CLONE_NEWNS) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        # Slave: what the machine unmounts meanwhile is not kept busy here, and nothing of this gets out.
        mount("none", "/", flags=MountFlags.REC | MountFlags(_MS_SLAVE))
        namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        root = os.open(rootfs, _OPEN)
        try:
            for point, source in sources:
                _bind(root, point, source)
        except BaseException:
            os.close(root)
            os.close(namespace)
            raise
        return namespace, root

    namespace, root = run_in_fresh_thread(inside)
    held.callback(os.close, namespace)  # The mounts live as long as somebody holds their namespace.
    return root


def _source(engine: Engine, container: Container, point: RecordMountPoint, held: ExitStack) -> Path:
    if point.Type == "image":
        place = mount_image(engine, container, point)
        held.callback(unmount_image, engine, container, point)
        return place
    if point.Type != "volume":
        return Path(point.Source)
    reference = f"archive-{secrets.token_hex(8)}"
    source = engine.volumes.mount(point.Name, reference)
    held.callback(engine.volumes.unmount, point.Name, reference, quiet=True)
    return source


def _bind(root: int, point: RecordMountPoint, source: Path) -> None:
    with ExitStack() as held:
        try:
            origin = os.open(source, os.O_PATH | os.O_CLOEXEC)
            held.callback(os.close, origin)
            if subpath := _subpath(point):
                origin = openat2(origin, subpath, os.O_PATH)
                held.callback(os.close, origin)
            target = _mount_point(root, point.Destination, is_directory=S_ISDIR(os.fstat(origin).st_mode))
            held.callback(os.close, target)
        except FileNotFoundError:
            return  # The source is gone, which the next start will complain about.
        flags = MountFlags.BIND | MountFlags.REC
        mount(f"/proc/thread-self/fd/{origin}", f"/proc/thread-self/fd/{target}", flags=flags)


def _subpath(point: RecordMountPoint) -> str:
    spec = point.Spec or Mount()
    options = {"volume": spec.VolumeOptions, "image": spec.ImageOptions}.get(point.Type)
    return options.Subpath if options is not None else ""


def _mount_point(root: int, path: str, *, is_directory: bool) -> int:
    """What is mounted on; made if it is missing, as the runtime would at the start."""
    try:
        return openat2(root, path, os.O_PATH)
    except FileNotFoundError:
        kind = DIRECTORY if is_directory else REGULAR
        with Extractor(f"/proc/thread-self/fd/{root}", IdMap()) as extractor:
            extractor.add(TarEntry(path, kind, 0o755, 0, 0, 0, time.time_ns()), b"")
        return openat2(root, path, os.O_PATH)
