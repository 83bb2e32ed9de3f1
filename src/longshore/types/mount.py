"""Mounts as the Engine API describes them."""

from __future__ import annotations

from longshore.types.codec import ApiStruct, names


class BindOptions(ApiStruct):
    """How a path of the host is bound."""

    _omitempty = names(
        "Propagation NonRecursive CreateMountpoint ReadOnlyNonRecursive ReadOnlyForceRecursive"
    )
    Propagation: str = ""
    NonRecursive: bool = False
    CreateMountpoint: bool = False
    ReadOnlyNonRecursive: bool = False
    ReadOnlyForceRecursive: bool = False


class Driver(ApiStruct):
    """A volume driver and its options."""

    _omitempty = names("Name Options")
    Name: str = ""
    Options: dict[str, str] | None = None


class VolumeOptions(ApiStruct):
    """How a volume is mounted, and made if it is missing."""

    _omitempty = names("NoCopy Labels Subpath DriverConfig")
    NoCopy: bool = False
    Labels: dict[str, str] | None = None
    Subpath: str = ""
    DriverConfig: Driver | None = None


class TmpfsOptions(ApiStruct):
    """Size in bytes (0: no limit), mode as a number, further mount options as lists of key and value."""

    _omitempty = names("SizeBytes Mode Options")
    SizeBytes: int = 0
    Mode: int = 0
    Options: list[list[str]] | None = None


class ImageOptions(ApiStruct):
    """Which part of an image is mounted."""

    _omitempty = names("Subpath")
    Subpath: str = ""


class Mount(ApiStruct):
    """A mount that is asked for (`--mount`)."""

    _omitempty = names(
        "Type Source Target ReadOnly Consistency BindOptions VolumeOptions ImageOptions TmpfsOptions"
    )
    Type: str = ""
    Source: str = ""
    Target: str = ""
    ReadOnly: bool = False
    Consistency: str = ""
    BindOptions: BindOptions | None = None
    VolumeOptions: VolumeOptions | None = None
    ImageOptions: ImageOptions | None = None
    TmpfsOptions: TmpfsOptions | None = None


class MountPoint(ApiStruct):
    """A mount that a container has."""

    _omitempty = names("Type Name Driver")
    Type: str = ""
    Name: str = ""
    Source: str = ""
    Destination: str = ""
    Driver: str = ""
    Mode: str = ""
    RW: bool = False
    Propagation: str = ""
