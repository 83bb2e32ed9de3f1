"""docker import: an image of one layer, from the archive of a file system."""

from __future__ import annotations

import os
from typing import BinaryIO

import msgspec

from longshore import __version__
from longshore.errors import InvalidParameter
from longshore.images.load import Platform
from longshore.images.store import ImageStore
from longshore.layers.store import LayerStore
from longshore.types.codec import to_plain
from longshore.types.container import Config
from longshore.types.timestamp import now

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "i386": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


def import_image(
    stream: BinaryIO,
    layers: LayerStore,
    images: ImageStore,
    *,
    comment: str,
    config: Config,
    platform: Platform,
) -> str:
    """Register the archive and an image of it; returns the id. Raises InvalidParameter."""
    if platform.os not in ("", "linux"):
        raise InvalidParameter(f'operating system "{platform.os}" is not supported')
    layer = layers.register(stream, None)
    try:
        created = now()
        described = {
            "architecture": platform.architecture or host_architecture(),
            "comment": comment,
            "config": to_plain(config),
            "container_config": to_plain(Config()),
            "created": created,
            "docker_version": __version__,
            "history": [{"created": created, "comment": comment}],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": layer.diff_ids},
        }
        if platform.variant:
            described["variant"] = platform.variant
        return images.create(msgspec.json.encode(described, order="sorted"))
    finally:
        layers.release(layer)


def host_architecture() -> str:
    """This machine's, by the name Go has for it."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)
