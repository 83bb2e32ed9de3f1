"""A container's mounts: volumes, binds and tmpfs, from what was asked for to what the runtime mounts.

At creation each request becomes a mount point of the record: volumes are made and counted, and empty ones
filled from the image. At each start mount points become sources that exist on the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from pathlib import Path

import msgspec

from longshore.containers.container import Container
from longshore.containers.record import RecordMountPoint
from longshore.engine.engine import Engine
from longshore.engine.image_mounts import (
    create_image_mount,
    mark_of,
    mount_image,
    remove_image_mount,
    unmount_image,
)
from longshore.errors import Conflict, EngineError, InvalidParameter, NotFound, System
from longshore.linux.mount import MountFlags, UnmountFlags, is_mount_point, mount, umount
from longshore.linux.openat import openat2
from longshore.oci.input import ResolvedMount
from longshore.oci.mount_spec import (
    DEFAULT_PROPAGATION,
    MountRequest,
    convert_tmpfs_options,
    mount_requests,
    parse_volumes_from,
)
from longshore.types.mount import BindOptions, Mount
from longshore.volumes.copyup import copy_up, has_directory

log = logging.getLogger(__name__)


async def create_mount_points(
    engine: Engine, container: Container, *, read_only_recursive: bool = True
) -> None:
    """Decide every mount of a new container. Raises InvalidParameter, NotFound, Conflict, OSError.

    Volumes and layers of images that were made are the container's; `release_mount_points` gives them back.
    """
    points = container.mount_points
    points.update(_volumes_from(engine, container))
    for request in mount_requests(container.config, container.host_config):
        if (
            request.type == "volume"
            and request.destination in points
            and not request.name
            and not request.spec
        ):
            continue  # The image's VOLUME, where --volumes-from has something already.
        if request.type == "tmpfs" and request.spec is None:
            continue  # --tmpfs stays in HostConfig alone, as in Docker.
        point = await asyncio.to_thread(_mount_point, engine, container, request)
        points[request.destination] = point
        if point.Type == "bind" and not (point.RW or read_only_recursive) and point.Spec is not None:
            bind = msgspec.structs.replace(point.Spec.BindOptions or BindOptions(), ReadOnlyNonRecursive=True)
            point.Spec = msgspec.structs.replace(point.Spec, BindOptions=bind)  # not that of HostConfig
    for point in points.values():
        if point.Type == "image":
            await asyncio.to_thread(create_image_mount, engine, container, point)
    fill = [point for point in points.values() if point.CopyData]
    if fill:
        await asyncio.to_thread(_copy_up, engine, container, fill)
    for point in fill:
        point.CopyData = False


async def release_mount_points(engine: Engine, container: Container, *, remove_anonymous: bool) -> None:
    """A removed container uses no volume any more; with `remove_anonymous` its nameless ones go too."""
    for point in container.mount_points.values():
        if point.Type == "image":
            await asyncio.to_thread(remove_image_mount, engine, container, point)
        if point.Type != "volume":
            continue
        engine.volumes.release(point.Name, container.id)
        if remove_anonymous and point.Spec is not None and not point.Spec.Source:
            # Other containers may use it by --volumes-from: then it is theirs to remove.
            with contextlib.suppress(Conflict, NotFound):
                try:
                    await asyncio.to_thread(engine.volumes.remove, point.Name)
                except System as exc:  # A plug-in that is gone keeps its volume, not our container.
                    log.error("container %s: %s", container.id[:12], exc)


def reference_volumes(engine: Engine, container: Container) -> None:
    """Count the volumes of a container that was read from disk."""
    for point in container.mount_points.values():
        if point.Type == "volume":
            try:
                engine.volumes.reference(point.Name, container.id)
                # dockerd leaves it out for volumes without a name.
                if not point.Source and point.Driver in ("", "local"):
                    point.Source = str(engine.volumes.path(point.Name))
            except NotFound:
                log.warning("container %s: its volume %s is gone", container.id[:12], point.Name)


async def setup_mounts(engine: Engine, container: Container) -> list[ResolvedMount]:
    """Make every source exist, outermost destination first. Raises InvalidParameter, System, OSError."""
    if not container.mount_points and not container.host_config.Tmpfs and not _needs_shm(container):
        return []
    return await asyncio.to_thread(_setup_mounts, engine, container)


async def release_mounts(engine: Engine, container: Container) -> None:
    """Give back what `setup_mounts` mounted. Idempotent."""
    if not container.mount_points and not (container.root / "mounts").exists():
        return
    await asyncio.to_thread(_release_mounts, engine, container)


async def remount(engine: Engine, container: Container) -> None:
    """Hold the volumes and images of a container that outlived the last daemon."""
    for point in container.mount_points.values():
        if point.Type == "image":
            with contextlib.suppress(EngineError):
                await asyncio.to_thread(mount_image, engine, container, point)
        if point.Type == "volume":
            with contextlib.suppress(EngineError):
                await asyncio.to_thread(engine.volumes.mount, point.Name, container.id)


def _volumes_from(engine: Engine, container: Container) -> dict[str, RecordMountPoint]:
    points = {}
    for text in container.host_config.VolumesFrom or []:
        wanted = parse_volumes_from(text)
        try:
            other = engine.containers.get(wanted.container)
        except NotFound as exc:
            raise InvalidParameter(exc.message) from exc  # It is not the image that is missing.
        for destination, point in other.mount_points.items():
            copy = RecordMountPoint(**{f: getattr(point, f) for f in point.__struct_fields__})
            copy.RW = point.RW and "ro" not in wanted.mode.split(",")
            copy.Mode = wanted.mode
            copy.CopyData = False
            if copy.Type == "volume":
                engine.volumes.reference(copy.Name, container.id)
            points[destination] = copy
    return points


def _mount_point(engine: Engine, container: Container, request: MountRequest) -> RecordMountPoint:
    point = RecordMountPoint(
        Destination=request.destination,
        RW=request.rw,
        Type=request.type,
        Mode=request.mode,
        Propagation=request.propagation,
        Spec=request.spec or _spec_of(request),
    )
    if request.type == "bind":
        point.Propagation = _propagation(engine, request)
        point.Source = request.source
        point.SkipMountpointCreation = not request.create_source
    elif request.type == "volume":
        options = request.spec.VolumeOptions if request.spec is not None else None
        driver = options.DriverConfig if options is not None else None
        volume = engine.volumes.create(
            request.name,
            request.driver,
            driver.Options if driver is not None else None,
            options.Labels if options is not None else None,
            ref=container.id,
        )
        point.Name, point.Source, point.Driver = volume.Name, volume.Mountpoint, volume.Driver
        point.CopyData = request.copy_data
    return point


def _propagation(engine: Engine, request: MountRequest) -> str:
    """A bind that holds the daemon's own mounts must let go of them when the daemon does, or be busy forever.

    Raises InvalidParameter if the user wants it otherwise.
    """
    root, source = str(engine.data_root), request.source
    if not (source.startswith(root) or root.startswith(source)):
        return request.propagation or DEFAULT_PROPAGATION
    if request.propagation in ("", "rslave", "rshared"):
        return request.propagation or "rslave"
    raise InvalidParameter(
        'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is '
        f'within the daemon root, daemon root: "{root}", bind mount source: "{source}", '
        f'propagation: "{request.propagation}"'
    )


def _spec_of(request: MountRequest) -> Mount:
    """The `--mount` that says what a `-v` said, as dockerd keeps it."""
    spec = Mount(
        Type=request.type,
        Source=request.source if request.type == "bind" else request.name,
        Target=request.destination,
        ReadOnly=not request.rw,
    )
    if request.type == "bind":
        spec.BindOptions = BindOptions(request.propagation, CreateMountpoint=request.create_source)
    return spec


def _copy_up(engine: Engine, container: Container, points: list[RecordMountPoint]) -> None:
    rw_layer = engine.layers.get_rw_layer(container.id)
    rootfs = rw_layer.mount(container.record.MountLabel)
    try:
        for point in points:
            if point.Spec is not None and point.Spec.VolumeOptions is None and not point.Spec.Source:
                _refuse_files(rootfs, point.Destination)
            if not has_directory(rootfs, point.Destination):
                continue  # A plug-in need not mount what gets nothing.
            volume = engine.volumes.mount(point.Name, container.id)
            try:
                copy_up(volume, rootfs, point.Destination)
            finally:
                engine.volumes.unmount(point.Name, container.id, quiet=True)
    finally:
        rw_layer.unmount()


def _refuse_files(rootfs: Path, destination: str) -> None:
    """A VOLUME where the image has a file. Raises System, worded as Docker words it."""
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        held = openat2(root, destination, os.O_PATH)
    except OSError:
        return  # Made as a directory when it is mounted.
    finally:
        os.close(root)
    try:
        if not stat.S_ISDIR(os.fstat(held).st_mode):
            path = rootfs / destination.lstrip("/")
            raise System(f"cannot mount volume over existing file, file exists {path}")
    finally:
        os.close(held)


def _setup_mounts(engine: Engine, container: Container) -> list[ResolvedMount]:
    mounts = [_resolve(engine, container, point) for point in container.mount_points.values()]
    for path, options in (container.host_config.Tmpfs or {}).items():
        words = tuple(word for word in options.split(",") if word)
        mounts.append(ResolvedMount("tmpfs", path, "tmpfs", "ro" not in words, options=words))
    if _needs_shm(container):
        _mount_shm(container, engine.remapping.root)
    return sorted(mounts, key=lambda one: one.destination.rstrip("/").count("/"))


def _resolve(engine: Engine, container: Container, point: RecordMountPoint) -> ResolvedMount:
    spec = point.Spec or Mount()
    if point.Type == "tmpfs":
        options = tuple(convert_tmpfs_options(spec.TmpfsOptions, read_only=not point.RW))
        return ResolvedMount("tmpfs", point.Destination, "tmpfs", point.RW, options=options)
    if point.Type == "volume":
        how = {"read/write": str(point.RW).lower(), "propagation": point.Propagation}
        source = engine.volumes.mount(point.Name, container.id, {"destination": point.Destination, **how})
        if spec.VolumeOptions is not None and spec.VolumeOptions.Subpath:
            source = _bind_subpath(container, point, source, spec.VolumeOptions.Subpath)
        return ResolvedMount(str(source), point.Destination, rw=point.RW)
    if point.Type == "image":
        source = mount_image(engine, container, point)
        if spec.ImageOptions is not None and spec.ImageOptions.Subpath:
            source = _bind_subpath(container, point, source, spec.ImageOptions.Subpath)
        return ResolvedMount(str(source), point.Destination, rw=False, propagation=point.Propagation)
    if not point.SkipMountpointCreation:
        _make_source(point.Source)
    elif not os.path.lexists(point.Source):
        raise InvalidParameter(
            f'invalid mount config for type "bind": bind source path does not exist: {point.Source}'
        )
    bind = spec.BindOptions or BindOptions()
    return ResolvedMount(
        point.Source,
        point.Destination,
        rw=point.RW,
        propagation=point.Propagation,
        propagation_optional=not bind.Propagation,
        non_recursive=bind.NonRecursive,
        read_only_non_recursive=bind.ReadOnlyNonRecursive,
        read_only_force_recursive=bind.ReadOnlyForceRecursive,
    )


def _make_source(source: str) -> None:
    try:
        Path(source).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        pass  # A file, a socket, a device: bound as it is.
    except OSError as exc:
        raise InvalidParameter(
            f"error while creating mount source path '{source}': mkdir {source}: {exc.strerror}"
        ) from exc


def _bind_subpath(container: Container, point: RecordMountPoint, volume: Path, subpath: str) -> Path:
    """A part of a volume, held by a mount: whoever can write to the volume cannot exchange it for a link."""
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            held = openat2(root, subpath, os.O_PATH)
        except OSError as exc:
            raise InvalidParameter(
                f"cannot access path {volume / subpath}: {(exc.strerror or '').lower()}"
            ) from exc
        try:
            place = _own_mounts(container) / f"subpath-{mark_of(point)}"
            # It may have been the other kind at the last start.
            if Path(f"/proc/self/fd/{held}").is_dir():
                place.mkdir(exist_ok=True)
            else:
                place = place.with_name(f"{place.name}-file")
                place.touch()
            mount(f"/proc/self/fd/{held}", str(place), flags=MountFlags.BIND | MountFlags.REC)
            return place
        finally:
            os.close(held)
    finally:
        os.close(root)


def _needs_shm(container: Container) -> bool:
    return container.host_config.IpcMode == "shareable"


def _mount_shm(container: Container, owner: tuple[int, int]) -> None:
    """/dev/shm that other containers can share."""
    place = _own_mounts(container) / "shm"
    container.record.ShmPath = str(place)
    place.mkdir(mode=0o700, exist_ok=True)
    if not is_mount_point(place):
        size = container.host_config.ShmSize or 64 << 20
        flags = MountFlags.NOEXEC | MountFlags.NOSUID | MountFlags.NODEV
        mount("shm", str(place), "tmpfs", flags, f"mode=1777,size={size}")
        os.chown(place, *owner)


def _own_mounts(container: Container) -> Path:
    place = container.root / "mounts"
    place.mkdir(mode=0o711, exist_ok=True)
    return place


def _release_mounts(engine: Engine, container: Container) -> None:
    for point in container.mount_points.values():
        if point.Type == "volume":
            with contextlib.suppress(NotFound):
                engine.volumes.unmount(point.Name, container.id)
    place = container.root / "mounts"
    if place.is_dir():
        for entry in place.iterdir():
            with contextlib.suppress(OSError):
                while True:  # A start that was cut off may have left its own below.
                    umount(entry, UnmountFlags.NOFOLLOW | UnmountFlags.DETACH)
        container.record.ShmPath = ""
    for point in container.mount_points.values():
        if point.Type == "image":  # after what is bound from it
            unmount_image(engine, container, point)
