"""Images as the Engine API describes them (api/types/image of Docker 28)."""

from __future__ import annotations

from typing import Any

import msgspec

from longshore.types.codec import ApiStruct, names


class DriverData(ApiStruct):
    """Where a graph driver keeps something."""

    Data: dict[str, str] | None = None
    Name: str = ""


class RootFS(ApiStruct):
    """Layers of an image, lowest first, by diff id."""

    _omitempty = names("Layers")
    Type: str = "layers"
    Layers: list[str] = msgspec.field(default_factory=list)


class ImageMetadata(ApiStruct):
    """What is known of an image on this host only. RFC 3339 times."""

    LastTagTime: str = "0001-01-01T00:00:00Z"


class ImageInspect(ApiStruct):
    """Answer to GET /images/{name}/json. Sizes in bytes."""

    _omitempty = names("Created Container ContainerConfig Variant OsVersion VirtualSize")
    Id: str
    RepoTags: list[str]
    RepoDigests: list[str]
    Parent: str = ""
    Container: str = ""
    """API < 1.45: the container it was committed from."""
    ContainerConfig: dict[str, Any] | None = None
    """API < 1.45: that container's settings."""
    Comment: str = ""
    Created: str = ""
    DockerVersion: str = ""
    Author: str = ""
    Config: dict[str, Any] | None = None
    Architecture: str = ""
    Variant: str = ""
    Os: str = ""
    OsVersion: str = ""
    Size: int = 0
    VirtualSize: int | None = None
    """API < 1.44: the same as Size."""
    GraphDriver: DriverData = msgspec.field(default_factory=DriverData)
    RootFS: RootFS = msgspec.field(default_factory=RootFS)
    Metadata: ImageMetadata = msgspec.field(default_factory=ImageMetadata)


class ImageSummary(ApiStruct):
    """An item of GET /images/json. Created: seconds since the epoch; -1 for counts that were not made."""

    _omitempty = names("VirtualSize")
    Containers: int
    Created: int
    Id: str
    Labels: dict[str, str] | None
    ParentId: str
    RepoDigests: list[str]
    RepoTags: list[str]
    SharedSize: int
    Size: int
    VirtualSize: int | None = None
    """API < 1.44: the same as Size."""


class ImageHistoryItem(ApiStruct):
    """An item of GET /images/{name}/history, newest first."""

    Comment: str
    Created: int
    CreatedBy: str
    Id: str
    Size: int
    Tags: list[str] | None


class ImageDeleteItem(ApiStruct):
    """An item of the answer to DELETE /images/{name}: one of the two is set."""

    _omitempty = names("Deleted Untagged")
    Deleted: str = ""
    Untagged: str = ""


class ImagesPruneReport(ApiStruct):
    """Answer to POST /images/prune. SpaceReclaimed in bytes."""

    ImagesDeleted: list[ImageDeleteItem] | None
    SpaceReclaimed: int
