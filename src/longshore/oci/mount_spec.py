"""What mounts are asked for: `-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image's VOLUMEs, parsed.

Follows moby's volume/mounts/linux_parser.go, messages included. Nothing is looked up but the sources of
`--mount type=bind`, which must exist.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from longshore.errors import InvalidParameter
from longshore.oci.tmpfs import merge_tmpfs_options
from longshore.types.container import Config, HostConfig
from longshore.types.mount import Mount, TmpfsOptions

DEFAULT_PROPAGATION = "rprivate"

_MODES = {
    **dict.fromkeys(("rw", "ro"), "access"),
    **dict.fromkeys(("z", "Z"), "label"),
    **dict.fromkeys(("consistent", "cached", "delegated"), "consistency"),
    **dict.fromkeys(("private", "rprivate", "shared", "rshared", "slave", "rslave"), "propagation"),
    "nocopy": "copy",
}
_PROPAGATIONS = {mode for mode, kind in _MODES.items() if kind == "propagation"}


@dataclass(frozen=True)
class MountRequest:
    """One mount that is asked for, checked. `name` is a volume's; an empty one is anonymous."""

    type: Literal["bind", "volume", "tmpfs", "image"]
    destination: str
    source: str = ""
    """bind: a path of the host; image: the image."""
    name: str = ""
    driver: str = ""
    rw: bool = True
    mode: str = ""
    """As the user wrote it, e.g. `ro,z`."""
    propagation: str = ""
    """bind: as the user wrote it."""
    copy_data: bool = False
    """volume: fill it from the image if it is empty."""
    create_source: bool = False
    """bind: make a missing source directory, as `-v` does."""
    tmpfs_options: tuple[str, ...] = ()
    spec: Mount | None = None
    """The `--mount` it came from: labels, driver options, subpath, recursion."""


@dataclass(frozen=True)
class VolumesFrom:
    """Another container whose volumes are used too. `mode` is empty, or makes them `ro` or `rw`."""

    container: str
    mode: str = ""


def mount_requests(config: Config, host_config: HostConfig) -> list[MountRequest]:
    """Every mount of `Binds`, `Mounts`, `Tmpfs` and the image's `Volumes`; the latter give way to others.

    Raises InvalidParameter, also for two mounts on one place.
    """
    requests = [parse_bind(text, host_config.VolumeDriver) for text in host_config.Binds or []]
    requests += [parse_mount(mount) for mount in host_config.Mounts or []]
    requests += [parse_tmpfs(path, options) for path, options in (host_config.Tmpfs or {}).items()]
    taken: set[str] = set()
    for request in requests:
        if request.destination in taken:
            raise InvalidParameter(f"Duplicate mount point: {request.destination}")
        taken.add(request.destination)
    for path in config.Volumes or {}:
        destination = _clean(path)
        if destination not in taken:
            _check_destination(Mount(Type="volume", Target=path))
            taken.add(destination)
            requests.append(
                MountRequest("volume", destination, driver=host_config.VolumeDriver, copy_data=True)
            )
    return requests


def parse_bind(text: str, volume_driver: str = "") -> MountRequest:
    """`source:destination[:mode]`, `name:destination[:mode]` or `destination`, as in `-v`."""
    fields = text.split(":")
    invalid = f"invalid volume specification: '{text}'"
    if not fields[0] or len(fields) > 3 or (len(fields) == 2 and is_mode(fields[1])):
        raise InvalidParameter(invalid)
    source, target, mode = ("", fields[0], "") if len(fields) == 1 else (*fields[:2], [*fields, ""][2])
    if mode and not is_mode(mode):
        raise InvalidParameter(f"invalid mode: {mode}")
    words = mode.split(",") if mode else []
    kind: Literal["bind", "volume"] = "bind" if source.startswith("/") else "volume"
    propagation = next((word for word in words if word in _PROPAGATIONS), "")
    mount = Mount(Type=kind, Source=source, Target=target)
    try:
        _check_destination(mount)
        if kind == "volume" and propagation:
            raise _mount_error(mount, "field BindOptions must not be specified")
        if kind == "bind" and "nocopy" in words:
            raise _mount_error(mount, "field VolumeOptions must not be specified")
    except InvalidParameter as exc:
        raise InvalidParameter(f"{invalid}: {exc.message}") from None
    destination, rw = _clean(target), "ro" not in words
    if kind == "bind":
        return MountRequest(
            "bind",
            destination,
            source=_clean(source),
            rw=rw,
            mode=mode,
            propagation=propagation,
            create_source=True,
        )
    return MountRequest(
        "volume",
        destination,
        name=source,
        driver=volume_driver,
        rw=rw,
        mode=mode or "z",
        copy_data="nocopy" not in words,
    )


def is_mode(text: str) -> bool:
    """Whether `text` is a mode such as `ro,z`: known words, at most one of each kind."""
    kinds = [_MODES.get(word) for word in text.split(",")]
    return bool(text) and None not in kinds and len(set(kinds)) == len(kinds)


def parse_mount(mount: Mount) -> MountRequest:
    """One of `HostConfig.Mounts`, as in `--mount`."""
    _check_destination(mount)
    destination = _clean(mount.Target)
    if mount.Type == "bind":
        return _bind(mount, destination)
    if mount.Type == "volume":
        return _volume(mount, destination)
    if mount.Type == "tmpfs":
        _refuse(mount, "BindOptions", "VolumeOptions", "ImageOptions", "Source")
        try:
            options = tuple(convert_tmpfs_options(mount.TmpfsOptions, read_only=mount.ReadOnly))
        except InvalidParameter as exc:
            raise _mount_error(mount, exc.message) from None
        return MountRequest("tmpfs", destination, rw=not mount.ReadOnly, tmpfs_options=options, spec=mount)
    if mount.Type == "image":
        if not mount.Source:
            raise _mount_error(mount, "field Source must not be empty")
        _refuse(mount, "BindOptions", "VolumeOptions", "TmpfsOptions")
        _check_subpath(mount, mount.ImageOptions.Subpath if mount.ImageOptions else "")
        return MountRequest(
            "image",
            destination,
            source=mount.Source,
            rw=False,
            propagation=DEFAULT_PROPAGATION,
            spec=mount,
        )
    raise _mount_error(mount, "mount type unknown")


def parse_tmpfs(path: str, options: str) -> MountRequest:
    """One of `HostConfig.Tmpfs`."""
    if posixpath.normpath(path).lstrip("/") in ("", "."):
        raise InvalidParameter("invalid specification: destination can't be '/'")
    if not path.startswith("/"):
        raise InvalidParameter(f"invalid mount path: '{path}' mount path must be absolute")
    words = tuple(word for word in options.split(",") if word)
    merge_tmpfs_options(words)
    return MountRequest("tmpfs", _clean(path), rw="ro" not in words, mode=options, tmpfs_options=words)


def parse_volumes_from(text: str) -> VolumesFrom:
    """`container[:mode]`."""
    if not text:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    container, _, mode = text.partition(":")
    if mode:
        words = mode.split(",")
        if not is_mode(mode) or any(_MODES[word] in ("propagation", "copy") for word in words):
            raise InvalidParameter(f"invalid mode: {mode}")
    return VolumesFrom(container, mode)


def convert_tmpfs_options(options: TmpfsOptions | None, *, read_only: bool) -> list[str]:
    """tmpfs(5) options of `--mount type=tmpfs`: sizes with the largest unit that fits."""
    result = ["ro"] if read_only else []
    if options is None:
        return result
    if options.Mode:
        result.append(f"mode={options.Mode:o}")
    if options.SizeBytes:
        size, unit = options.SizeBytes, 0
        while size % 1024 == 0 and unit < 3:
            size, unit = size // 1024, unit + 1
        result.append(f"size={size}{('', 'k', 'm', 'g')[unit]}")
    for pair in options.Options or []:
        if len(pair) not in (1, 2):
            raise InvalidParameter("invalid option array length")
        if pair[0] not in ("exec", "noexec"):
            raise InvalidParameter("invalid option: " + pair[0])
        result.append("=".join(pair))
    return result


def _bind(mount: Mount, destination: str) -> MountRequest:
    if not mount.Source:
        raise _mount_error(mount, "field Source must not be empty")
    _refuse(mount, "VolumeOptions", "TmpfsOptions", "ImageOptions")
    _check_absolute(mount, mount.Source)
    options = mount.BindOptions
    propagation = options.Propagation if options else ""
    if propagation and propagation not in _PROPAGATIONS:
        raise _mount_error(mount, f"invalid propagation mode: {propagation}")
    if options and options.ReadOnlyForceRecursive and not mount.ReadOnly:
        raise _mount_error(mount, "mount option ReadOnlyForceRecursive requires ReadOnly")
    create = bool(options and options.CreateMountpoint)
    if not create and not _exists(mount.Source):
        raise _mount_error(mount, f"bind source path does not exist: {mount.Source}")
    return MountRequest(
        "bind",
        destination,
        source=_clean(mount.Source),
        rw=not mount.ReadOnly,
        propagation=propagation,
        create_source=create,
        spec=mount,
    )


def _volume(mount: Mount, destination: str) -> MountRequest:
    _refuse(mount, "BindOptions", "TmpfsOptions", "ImageOptions")
    options = mount.VolumeOptions
    if not mount.Source and mount.ReadOnly:
        raise _mount_error(mount, "must not set ReadOnly mode when using anonymous volumes")
    if options and options.Subpath:
        if not mount.Source:
            raise _mount_error(mount, "must not set Subpath when using anonymous volumes")
        _check_subpath(mount, options.Subpath)
    driver = options.DriverConfig.Name if options and options.DriverConfig else ""
    return MountRequest(
        "volume",
        destination,
        name=mount.Source,
        driver=driver,
        rw=not mount.ReadOnly,
        mode="z",
        copy_data=not (options and options.NoCopy),
        spec=mount,
    )


def _check_subpath(mount: Mount, path: str) -> None:
    if posixpath.isabs(path) or ".." in Path(posixpath.normpath(path)).parts:
        raise _mount_error(mount, "subpath must be a relative path within the volume")


def _check_destination(mount: Mount) -> None:
    if not mount.Target:
        raise _mount_error(mount, "field Target must not be empty")
    if posixpath.normpath(mount.Target).lstrip("/") in ("", "."):
        raise _mount_error(mount, "invalid specification: destination can't be '/'")
    _check_absolute(mount, mount.Target)


def _check_absolute(mount: Mount, path: str) -> None:
    if not path.startswith("/"):
        raise _mount_error(mount, f"invalid mount path: '{path}' mount path must be absolute")
    if "\0" in path:
        raise _mount_error(mount, "invalid mount path: it contains a null byte")


def _refuse(mount: Mount, *fields: str) -> None:
    for field in fields:
        if getattr(mount, field) not in (None, ""):
            raise _mount_error(mount, f"field {field} must not be specified")


def _mount_error(mount: Mount, problem: str) -> InvalidParameter:
    return InvalidParameter(f'invalid mount config for type "{mount.Type}": {problem}')


def _clean(path: str) -> str:
    # POSIX gives two leading slashes a meaning of their own; Linux and Docker do not.
    return posixpath.normpath("/" + path.lstrip("/"))


def _exists(path: str) -> bool:
    try:
        Path(path).lstat()
    except (OSError, ValueError):
        return False
    return True
