"""What an image runs on, and which one of several runs here best (containerd's platforms package)."""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

from longshore.errors import InvalidParameter
from longshore.types.numbers import decimal

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "armhf": "arm",
    "armel": "arm",
    "armv8l": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "loongarch64": "loong64",
}
_KNOWN = {"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle"} | {
    "ppc64", "ppc64le", "riscv64", "s390x", "wasm",
}  # fmt: skip
_SYSTEMS = {"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "illumos", "wasip1"}
_HIGHEST = 9
"""Of the numbered variants; who asks for a billion gets no list of those below."""
_ARM_VARIANTS = {"armhf": "v7", "armel": "v6", "armv7l": "v7", "armv6l": "v6", "armv8l": "v8"}


class Platform(NamedTuple):
    """Normalised: `linux/arm64`, `linux/arm/v7`."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


@functools.cache
def host_platform() -> Platform:
    """What this machine runs."""
    machine = os.uname().machine
    architecture, variant = _normalise(machine, _ARM_VARIANTS.get(machine, ""))
    return Platform("linux", architecture, variant)


def parse_platform(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/amd64`, `arm64` or `linux`. Raises InvalidParameter."""
    here = host_platform()
    parts = text.strip().lower().split("/")
    if not all(part.replace("_", "").replace("-", "").replace(".", "").isalnum() for part in parts):
        raise InvalidParameter(f'"{text}" is an invalid platform component: invalid argument')
    if len(parts) == 1:
        if parts[0] in _SYSTEMS:
            return here._replace(os=parts[0])
        architecture, variant = _normalise(parts[0], "")
        if architecture in _KNOWN:
            return Platform(here.os, architecture, variant)
        raise InvalidParameter(f'"{text}": unknown operating system or architecture: invalid argument')
    if len(parts) > 3:
        raise InvalidParameter(f'"{text}": cannot parse platform specifier: invalid argument')
    architecture, variant = _normalise(parts[1], parts[2] if len(parts) == 3 else "")
    if len(parts) == 3 and architecture == "arm64" and not variant:
        variant = "v8"
    return Platform(parts[0], architecture, variant)


def rank(wanted: Platform, offered: Platform) -> int | None:
    """How well an image for `offered` runs on `wanted`: 0 is best, None is not at all."""
    if wanted.os != offered.os:
        return None
    runs = _runs(wanted)
    offer = _normalise(offered.architecture, offered.variant)
    return runs.index(offer) if offer in runs else None


def _runs(wanted: Platform) -> list[tuple[str, str]]:
    """Architectures and variants that the platform runs, best first."""
    architecture, variant = _normalise(wanted.architecture, wanted.variant)
    level = decimal(variant[1:])
    if level is not None and level > _HIGHEST:
        return [(architecture, variant)]
    if architecture == "amd64":
        level = 1 if level is None else level
        lower = [("amd64", f"v{number}" if number > 1 else "") for number in range(level, 0, -1)]
        return [*lower, ("386", "")]
    if architecture == "arm":
        level = 7 if level is None else level
        return [("arm", f"v{number}") for number in range(level, 4, -1)]
    if architecture == "arm64":
        return [("arm64", variant), ("arm64", ""), *(("arm", f"v{number}") for number in range(8, 4, -1))]
    return [(architecture, variant)]


def _normalise(architecture: str, variant: str) -> tuple[str, str]:
    architecture, variant = architecture.lower(), variant.lower()
    if decimal(variant) is not None:
        variant = f"v{variant}"
    variant = variant or _ARM_VARIANTS.get(architecture, "")
    architecture = _ARCHITECTURES.get(architecture, architecture)
    if architecture == "arm64" and variant == "v8":
        variant = ""
    if architecture == "amd64" and variant == "v1":
        variant = ""
    if architecture == "arm" and not variant:
        variant = "v7"
    return architecture, variant
