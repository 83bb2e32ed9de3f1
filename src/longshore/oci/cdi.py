"""The Container Device Interface: what has to be changed in a specification to give a container a device.

Vendors describe their devices in files of /etc/cdi and /var/run/cdi, named `vendor.com/class=name`. Follows
https://github.com/cncf-tags/container-device-interface, its Go library included where the text says nothing.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from longshore.errors import System
from longshore.oci.process import replace_or_append

log = logging.getLogger(__name__)

_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class CDIDevice(NamedTuple):
    """A device, with the edits of its own and those of all devices of its file."""

    name: str
    """Qualified: `vendor.com/class=name`."""
    file: str
    edits: dict[str, Any]
    edits_of_file: dict[str, Any]


def cdi_devices(directories: Iterable[str]) -> dict[str, CDIDevice]:
    """Every device by its name. A later directory goes before an earlier one, as in Docker.

    Files that cannot be read, and devices that two files of one directory claim, are logged and left out.
    """
    found: dict[str, CDIDevice] = {}
    for directory in directories:
        here: dict[str, CDIDevice] = {}
        ambiguous: set[str] = set()
        for device in _devices_in(Path(directory)):
            if device.name in here:
                log.warning("CDI device %s is in %s and %s", device.name, here[device.name].file, device.file)
                ambiguous.add(device.name)
            here[device.name] = device
        found |= here
        for name in ambiguous:
            del found[name]
    return found


def inject_cdi_devices(spec: dict[str, Any], names: Sequence[str], directories: Iterable[str]) -> None:
    """Change the specification so that the container has the devices. Raises System if one is not known."""
    known = cdi_devices(directories)
    if missing := [name for name in names if name not in known]:
        raise System(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}")
    files: set[str] = set()
    for name in names:
        device = known[name]
        try:
            if device.file not in files:
                files.add(device.file)
                _apply(spec, device.edits_of_file)
            _apply(spec, device.edits)
        except (KeyError, TypeError, AttributeError) as exc:
            raise System(f"CDI device injection failed: {device.file}: invalid edits of {name}") from exc


def _devices_in(directory: Path) -> Iterator[CDIDevice]:
    try:
        files = sorted(entry for entry in directory.iterdir() if entry.suffix in (".json", ".yaml"))
    except OSError:
        return
    for file in files:
        try:
            # YAML's parser is imported for YAML alone.
            decode = msgspec.json.decode if file.suffix == ".json" else msgspec.yaml.decode
            content = decode(file.read_bytes(), type=dict[str, Any])
            for device in content.get("devices") or []:
                yield CDIDevice(
                    f"{content['kind']}={device['name']}",
                    str(file),
                    device.get("containerEdits") or {},
                    content.get("containerEdits") or {},
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            log.warning("CDI specification %s cannot be used: %s", file, exc)


def _apply(spec: dict[str, Any], edits: dict[str, Any]) -> None:
    process, linux = spec["process"], spec["linux"]
    if variables := edits.get("env"):
        process["env"] = replace_or_append(process["env"], variables)
    for node in edits.get("deviceNodes") or []:
        _add_device(process, linux, node)
    for mount in edits.get("mounts") or []:
        _add_mount(spec, mount)
    if edits.get("mounts"):
        # What lies deeper is mounted later, or it would be hidden.
        spec["mounts"].sort(key=lambda entry: len(Path(entry["destination"]).parts))
    for hook in edits.get("hooks") or []:
        if hook.get("hookName") not in _HOOKS:
            raise System(f"CDI device injection failed: unknown hook name {hook.get('hookName')!r}")
        entry = {key: hook[key] for key in ("path", "args", "env", "timeout") if hook.get(key)}
        spec.setdefault("hooks", {}).setdefault(hook["hookName"], []).append(entry)
    for gid in edits.get("additionalGids") or []:
        if gid and gid not in process["user"]["additionalGids"]:
            process["user"]["additionalGids"].append(gid)
    if edits.get("intelRdt"):
        linux["intelRdt"] = edits["intelRdt"]


def _add_device(process: dict[str, Any], linux: dict[str, Any], node: dict[str, Any]) -> None:
    device = {"path": node["path"], **_found_on_host(node)}
    for key in ("type", "major", "minor", "fileMode", "uid", "gid"):
        if node.get(key) is not None:
            device[key] = node[key]
    for key in ("uid", "gid"):
        if key not in device and process["user"][key]:
            device[key] = process["user"][key]
    linux["devices"] = [other for other in linux["devices"] if other["path"] != device["path"]] + [device]
    if device["type"] in ("b", "c"):
        rule = {key: device[key] for key in ("type", "major", "minor")}
        access = node.get("permissions") or "rwm"
        linux["resources"]["devices"].append({"allow": True, **rule, "access": access})


def _found_on_host(node: dict[str, Any]) -> dict[str, Any]:
    """Type and number of the device node, where the file does not say them."""
    if node.get("type") and (node.get("major") or node["type"] == "p"):
        return {}
    path = node.get("hostPath") or node["path"]
    try:
        status = os.lstat(path)
    except OSError as exc:
        problem = f'failed to stat CDI host device "{path}": {(exc.strerror or "").lower()}'
        raise System(f"CDI device injection failed: {problem}") from exc
    kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None or node.get("type") not in (None, "", kind):
        raise System(f'CDI device injection failed: CDI device ("{path}") is not of the type it should be')
    return {"type": kind, "major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}


def _add_mount(spec: dict[str, Any], mount: dict[str, Any]) -> None:
    destination = mount["containerPath"]
    entry = {
        "destination": destination,
        "source": mount["hostPath"],
        "type": mount.get("type") or "",
        "options": list(mount.get("options") or []),
    }
    kept = [other for other in spec["mounts"] if other["destination"] != destination]
    spec["mounts"] = [*kept, {key: value for key, value in entry.items() if value}]
