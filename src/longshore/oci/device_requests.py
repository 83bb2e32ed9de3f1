"""Devices that are asked of a driver: `--gpus`, and `--device vendor.com/class=name`.

Follows moby's daemon/devices.go, nvidia_linux.go and cdi.go, messages included.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

from longshore.errors import InvalidParameter, System
from longshore.types.resources import DeviceRequest

NVIDIA_HOOK = "nvidia-container-runtime-hook"
"""Comes with NVIDIA's container toolkit; without it there is no such driver."""

_NVIDIA_CAPABILITIES = {"compat32", "compute", "display", "graphics", "ngx", "utility", "video"}


def inject_requested_devices(
    spec: dict[str, Any], requests: Sequence[DeviceRequest], cdi_directories: Sequence[str]
) -> None:
    """Change the specification so that the container has what it asks for.

    Raises System if no driver has it, InvalidParameter for a request that contradicts itself.
    """
    for request in requests:
        driver, selected = _select(request)
        if driver == "nvidia":
            _inject_nvidia(spec, request, selected)
        else:
            _inject_cdi(spec, request, cdi_directories)


def _select(request: DeviceRequest) -> tuple[str, list[str]]:
    """The driver, and the set of capabilities of the request that it has."""
    drivers = {"nvidia": {"gpu", "nvidia", *_NVIDIA_CAPABILITIES}} if shutil.which(NVIDIA_HOOK) else {}
    drivers["cdi"] = {"cdi"}
    for name, capabilities in drivers.items():
        if request.Driver in ("", name):
            for wanted in request.Capabilities or [[]]:
                if capabilities.issuperset(wanted or []):
                    return name, list(wanted or [])
    sets = " ".join(f"[{' '.join(names or [])}]" for names in request.Capabilities or [])
    raise System(f'could not select device driver "{request.Driver}" with capabilities: [{sets}]')


def _inject_nvidia(spec: dict[str, Any], request: DeviceRequest, selected: list[str]) -> None:
    if request.Count and request.DeviceIDs:
        raise InvalidParameter("cannot set both Count and DeviceIDs on device request")
    if request.DeviceIDs:
        visible = ",".join(request.DeviceIDs)
    elif request.Count > 0:
        visible = ",".join(map(str, range(request.Count)))
    else:
        visible = "all" if request.Count < 0 else "void"
    environment = spec["process"]["env"]
    environment.append(f"NVIDIA_VISIBLE_DEVICES={visible}")
    if capabilities := [name for name in selected if name in _NVIDIA_CAPABILITIES]:
        environment.append(f"NVIDIA_DRIVER_CAPABILITIES={','.join(capabilities)}")
    hook = {
        "path": shutil.which(NVIDIA_HOOK),
        "args": [NVIDIA_HOOK, "prestart"],
        "env": [f"{name}={value}" for name, value in os.environ.items()],
    }
    spec.setdefault("hooks", {}).setdefault("prestart", []).append(hook)


def _inject_cdi(spec: dict[str, Any], request: DeviceRequest, directories: Sequence[str]) -> None:
    if request.Count:
        raise InvalidParameter("unexpected count in CDI device request")
    if request.Options:
        raise InvalidParameter("unexpected options in CDI device request")
    if request.DeviceIDs:
        from longshore.oci.cdi import inject_cdi_devices

        inject_cdi_devices(spec, request.DeviceIDs, directories)
