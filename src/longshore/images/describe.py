"""Images as the API lists and inspects them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from longshore.images.pattern import compile_pattern
from longshore.images.reference import Reference
from longshore.images.store import Image
from longshore.types.codec import convert, to_plain
from longshore.types.container import Config
from longshore.types.filters import Filters, boolean_filter, check_filters, labels_match, until_filter
from longshore.types.image import (
    DriverData,
    ImageHistoryItem,
    ImageInspect,
    ImageMetadata,
    ImageSummary,
    RootFS,
)
from longshore.types.timestamp import SECOND, parse_rfc3339

if TYPE_CHECKING:
    from longshore.images.remove import InUse
    from longshore.images.service import ImageService
    from longshore.layers.layer import Layer

_FILTERS = frozenset(("dangling", "label", "label!", "before", "since", "reference", "until"))

_SHOWN = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "Healthcheck",
    "OnBuild",
    "Shell",
)
"""The image's part of a container's configuration, omitted while empty: API 1.50's DockerOCIImageConfig."""

_EMPTY: dict[str, Any] = {
    "Cmd": None,
    "Entrypoint": None,
    "Env": None,
    "Labels": None,
    "OnBuild": None,
    "User": "",
    "Volumes": None,
    "WorkingDir": "",
}
"""What is shown of it even while empty: clients index these without a look."""

_OF_CONTAINERS: dict[str, Any] = {
    "AttachStderr": False,
    "AttachStdin": False,
    "AttachStdout": False,
    "Domainname": "",
    "Hostname": "",
    "Image": "",
    "OpenStdin": False,
    "StdinOnce": False,
    "Tty": False,
}
"""What API < 1.50 showed beside it: settings of containers that an image never has."""


def inspect(service: ImageService, image: Image) -> ImageInspect:
    """GET /images/{name}/json."""
    tags, digests = split_references(service.references.references(image.id))
    described = image.described
    layer = service.images.layer(image.id)
    driver = service.layers.driver
    return ImageInspect(
        Id=image.id,
        RepoTags=tags,
        RepoDigests=digests,
        Parent=service.images.parent(image.id),
        Comment=described.get("comment") or (image.history[-1].get("comment") or "" if image.history else ""),
        Created=image.created,
        DockerVersion=described.get("docker_version") or "",
        Author=described.get("author") or "",
        Config=_EMPTY | {key: image.config[key] for key in _SHOWN if image.config.get(key)},
        Container=described.get("container") or "",
        ContainerConfig=to_plain(convert(described.get("container_config") or {}, Config)),
        Architecture=image.architecture,
        Variant=image.variant,
        Os=image.os,
        OsVersion=described.get("os.version") or "",
        Size=layer.total_size if layer else 0,
        GraphDriver=DriverData(driver.metadata(layer.cache_id) if layer else None, driver.name),
        RootFS=RootFS(Layers=image.diff_ids),
        Metadata=ImageMetadata(service.images.last_updated(image.id)),
    )


def as_of_version(described: ImageInspect, version: tuple[int, ...]) -> ImageInspect:
    """What clients of an older API version are used to, added; what they do not know, left out."""
    if version < (1, 44):
        described.VirtualSize = described.Size
        described.Created = described.Created or "0001-01-01T00:00:00Z"
    if version >= (1, 45):
        # Docker dropped ContainerConfig with it, and so broke docker-compose 1.x, which asks in the newest
        # version there is and cannot recreate a container without. Nobody else minds the field.
        described.Container = ""
    if version < (1, 50):
        described.Config = _OF_CONTAINERS | (described.Config or {})
    return described


def summaries_as_of_version(listed: list[ImageSummary], version: tuple[int, ...]) -> list[ImageSummary]:
    """API < 1.44 had the size twice, API < 1.43 names for what has none."""
    for summary in listed:
        if version < (1, 44):
            summary.VirtualSize = summary.Size
        if version < (1, 43) and not summary.RepoTags and not summary.RepoDigests:
            summary.RepoTags, summary.RepoDigests = ["<none>:<none>"], ["<none>@<none>"]
    return listed


def history(service: ImageService, image: Image) -> list[ImageHistoryItem]:
    """GET /images/{name}/history."""
    layer = service.images.layer(image.id)
    sizes: list[int] = []
    while layer is not None:
        sizes.append(layer.size)
        layer = layer.parent
    items = []
    for step in image.history:
        size = sizes.pop() if sizes and not step.get("empty_layer") else 0
        created = parse_rfc3339(step.get("created") or "") // SECOND
        by = step.get("created_by") or ""
        items.append(ImageHistoryItem(step.get("comment") or "", created, by, "<missing>", size, None))
    items.reverse()
    id = image.id
    for item in items:
        tags, _ = split_references(service.references.references(id))
        item.Id, item.Tags = id, tags or None
        id = service.images.parent(id)
        if not id:
            break
    return items


def summaries(
    service: ImageService, filters: Filters, all: bool, shared_size: bool, in_use: InUse | None
) -> list[ImageSummary]:
    """GET /images/json."""
    check_filters(filters, _FILTERS)
    selected = _Selection(service, filters)
    names = service.references.all()
    found, chains = [], Counter[str]()
    for image in service.images.all():
        references = names.get(image.id, [])
        if not references and not all and service.images.children(image.id):
            continue
        if not selected.takes(image, references):
            continue
        shown = [each for each in references if selected.shows(each)]
        tags, digests = split_references(shown)
        layer = service.images.layer(image.id)
        chains.update(each.chain_id for each in _chain(layer))
        found.append(
            ImageSummary(
                Containers=len(in_use(image.id)) if in_use else -1,
                Created=parse_rfc3339(image.created) // SECOND,
                Id=image.id,
                Labels=image.config.get("Labels"),
                ParentId=service.images.parent(image.id),
                RepoDigests=digests,
                RepoTags=tags,
                SharedSize=-1,
                Size=layer.total_size if layer else 0,
            )
        )
    if shared_size:
        for summary in found:
            layers = _chain(service.images.layer(summary.Id))
            summary.SharedSize = sum(layer.size for layer in layers if chains[layer.chain_id] > 1)
    found.sort(key=lambda summary: (-summary.Created, summary.Id))
    return found


class _Selection:
    def __init__(self, service: ImageService, filters: Filters) -> None:
        self._dangling = boolean_filter(filters, "dangling")
        self._filters = filters
        self._patterns = [compile_pattern(pattern) for pattern in filters.get("reference") or []]
        self._before = min((_created(service, name) for name in filters.get("before") or []), default=None)
        self._since = max((_created(service, name) for name in filters.get("since") or []), default=None)
        self._until = until_filter(filters)

    def takes(self, image: Image, references: list[Reference]) -> bool:
        created = parse_rfc3339(image.created)
        if self._dangling is not None and self._dangling != (not any(each.tag for each in references)):
            return False
        if self._before is not None and created >= self._before:
            return False
        if self._since is not None and created <= self._since:
            return False
        if self._until is not None and created > self._until:
            return False
        if not labels_match(self._filters, image.labels):
            return False
        return not self._patterns or any(self.shows(each) for each in references)

    def shows(self, reference: Reference) -> bool:
        """As reference.FamiliarMatch: the name matches with or without its tag."""
        texts = (reference.familiar, reference.familiar_name)
        return not self._patterns or any(
            pattern.fullmatch(text) for pattern in self._patterns for text in texts
        )


def split_references(references: list[Reference]) -> tuple[list[str], list[str]]:
    """RepoTags and RepoDigests."""
    tags = [each.familiar for each in references if each.tag and not each.digest]
    return tags, [each.familiar for each in references if each.digest]


def _created(service: ImageService, name: str) -> int:
    return parse_rfc3339(service.resolve(name).created)


def _chain(layer: Layer | None) -> Iterator[Layer]:
    while layer is not None:
        yield layer
        layer = layer.parent
