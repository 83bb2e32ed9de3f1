"""Images mounted into containers: `--mount type=image`.

Each mount has a layer of its own on top of the image, as in dockerd: it is a reference to the image's layers,
which so outlive the image itself. Nothing is ever written to it, for it is mounted read-only.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from longshore.containers.container import Container
from longshore.containers.record import RecordMountPoint
from longshore.engine.engine import Engine
from longshore.errors import NotFound

OWNED_NAME = re.compile("([0-9a-f]{64})(-[0-9a-f]{16})?")
"""Layers of containers: the container's id, and for an image mount a part that tells its mounts apart."""


def create_image_mount(engine: Engine, container: Container, point: RecordMountPoint) -> None:
    """Make the layer of a mount whose Spec names an image, and complete the mount point.

    Blocks on the disk. Raises NotFound for an unknown image, InvalidParameter for what is no image's name.
    """
    assert point.Spec is not None
    image = engine.images.resolve(point.Spec.Source)
    layer = engine.layers.create_rw_layer(
        _layer_name(container, point), image.chain_id or None, init=lambda root: None
    )
    point.ID = layer.mount_id
    point.Name = point.Name or point.Spec.Source
    # A copy: it may be the request's, or another container's whose volumes are used.
    point.Spec = msgspec.structs.replace(point.Spec, Source=image.id)
    point.Source = layer.metadata().get("MergedDir", "")
    point.RW = False


def mount_image(engine: Engine, container: Container, point: RecordMountPoint) -> Path:
    """Where the image's files are. Blocks on the disk."""
    place = engine.layers.get_rw_layer(_layer_name(container, point)).mount(container.record.MountLabel)
    point.Source = str(place)
    return place


def unmount_image(engine: Engine, container: Container, point: RecordMountPoint) -> None:
    """Give a `mount_image` back, of this daemon or one before it. Idempotent."""
    with contextlib.suppress(NotFound):
        engine.layers.get_rw_layer(_layer_name(container, point)).unmount()


def remove_image_mount(engine: Engine, container: Container, point: RecordMountPoint) -> None:
    """Remove the mount's layer; the image's go with it if nobody else needs them. Idempotent."""
    with contextlib.suppress(NotFound):
        engine.layers.release_rw_layer(engine.layers.get_rw_layer(_layer_name(container, point)))


def layers_in_use(containers: Iterable[Container]) -> set[str]:
    """The names of the layers that these containers need mounted while they run."""
    names = set()
    for container in containers:
        points = container.mount_points.values()
        names |= {container.id} | {_layer_name(container, one) for one in points if one.Type == "image"}
    return names


def mark_of(point: RecordMountPoint) -> str:
    """Tells a container's mounts apart in names: that of the place alone may be long, and has slashes."""
    return hashlib.sha256(point.Destination.encode()).hexdigest()[:16]


def _layer_name(container: Container, point: RecordMountPoint) -> str:
    return f"{container.id}-{mark_of(point)}"
