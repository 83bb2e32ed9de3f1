"""Volumes as the Engine API describes them."""

from __future__ import annotations

from typing import Any

import msgspec

from longshore.types.codec import ApiStruct, names


class UsageData(ApiStruct):
    """Bytes on disk, and how many containers use the volume; -1 is unknown."""

    Size: int = -1
    RefCount: int = -1


class Volume(ApiStruct):
    """A volume, as GET /volumes/{name} answers it."""

    _omitempty = names("CreatedAt Status UsageData ClusterVolume")
    CreatedAt: str = ""
    Driver: str = "local"
    Labels: dict[str, str] | None = None
    Mountpoint: str = ""
    Name: str = ""
    Options: dict[str, str] | None = None
    Scope: str = "local"
    Status: dict[str, Any] | None = None
    UsageData: UsageData | None = None


class VolumeListResponse(ApiStruct):
    """Answer to GET /volumes."""

    Volumes: list[Volume] = msgspec.field(default_factory=list)
    Warnings: list[str] | None = None


class VolumeCreateRequest(ApiStruct):
    """Body of POST /volumes/create."""

    Name: str = ""
    Driver: str = ""
    DriverOpts: dict[str, str] | None = None
    Labels: dict[str, str] | None = None
    ClusterVolumeSpec: dict[str, Any] | None = None


class VolumesPruneResponse(ApiStruct):
    """Answer to POST /volumes/prune."""

    VolumesDeleted: list[str] | None = None
    SpaceReclaimed: int = 0
