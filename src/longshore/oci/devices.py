"""Device nodes of the container, and which devices its cgroup lets it use."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from longshore.errors import InvalidParameter, System
from longshore.oci import defaults
from longshore.types.container import HostConfig
from longshore.types.resources import DeviceMapping

# Made by the runtime in every container, or not the container's business.
_SKIPPED_DIRECTORIES = {"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"}
_RULE = re.compile(r"^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$")


def container_devices(host_config: HostConfig) -> list[dict[str, Any]]:
    """The `linux.devices` list: those asked for, and every device of the host if privileged.

    Raises System with moby's message if a path is no device.
    """
    devices: list[dict[str, Any]] = []
    if host_config.Privileged:
        devices = _devices_below(Path("/dev"), "/dev")
    for mapping in host_config.Devices or []:
        if host_config.Privileged and mapping.PathOnHost == mapping.PathInContainer:
            continue
        devices += _mapped(mapping)
    return devices


def device_cgroup_rules(host_config: HostConfig) -> list[dict[str, Any]]:
    """The `linux.resources.devices` list."""
    if host_config.Privileged:
        return [{"allow": True, "access": "rwm"}]
    rules = defaults.device_cgroup_rules()
    for mapping in host_config.Devices or []:
        for device in _mapped(mapping):
            rules.append(
                {
                    "allow": True,
                    "type": device["type"],
                    "major": device["major"],
                    "minor": device["minor"],
                    "access": mapping.CgroupPermissions or "rwm",
                }
            )
    return rules + [parse_device_cgroup_rule(rule) for rule in host_config.DeviceCgroupRules or []]


def parse_device_cgroup_rule(rule: str) -> dict[str, Any]:
    """`c 13:* rwm` as an OCI rule. Raises InvalidParameter."""
    match = _RULE.match(rule)
    if match is None:
        raise InvalidParameter(f'invalid device cgroup rule format: "{rule}"')
    kind, major, minor, access = match.groups()
    parsed: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    for name, value in (("major", major), ("minor", minor)):
        parsed[name] = -1 if value == "*" else int(value)
    return parsed


def _mapped(mapping: DeviceMapping) -> list[dict[str, Any]]:
    """One device, or all below a directory."""
    host, inside = mapping.PathOnHost, mapping.PathInContainer or mapping.PathOnHost
    try:
        resolved = Path(host)
        if resolved.is_symlink():
            resolved = resolved.resolve(strict=True)
        status = resolved.stat()
    except OSError as exc:
        raise System(_gathering(host, (exc.strerror or "unknown error").lower())) from exc
    if stat.S_ISDIR(status.st_mode):
        devices = _devices_below(resolved, inside)
        if not devices:
            raise System(_gathering(host, "not a device node"))
        return devices
    device = _device(resolved, inside)
    if device is None:
        raise System(_gathering(host, "not a device node"))
    return [device]


def _gathering(path: str, problem: str) -> str:
    return f'error gathering device information while adding custom device "{path}": {problem}'


def _devices_below(directory: Path, inside: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            if entry.is_symlink():
                continue
            path, target = Path(entry.path), f"{inside.rstrip('/')}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED_DIRECTORIES:
                    found += _devices_below(path, target)
            elif entry.name != "console" and (device := _device(path, target)) is not None:
                found.append(device)
    return found


def _device(path: Path, inside: str) -> dict[str, Any] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:  # gone since it was listed
        return None
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return None
    return {
        "path": inside,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
