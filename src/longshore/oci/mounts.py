"""The container's mounts: Docker's defaults with what was asked for in their place or behind them."""

from __future__ import annotations

import os
from typing import Any

from longshore.errors import InvalidParameter
from longshore.linux.host import HostFacts
from longshore.linux.mount import mountinfo
from longshore.oci import defaults
from longshore.oci.input import ResolvedMount, SpecInput
from longshore.oci.namespaces import remapped
from longshore.oci.security_options import parse_security_options
from longshore.oci.tmpfs import merge_tmpfs_options

_RECURSIVE_READ_ONLY_SINCE = (5, 12)  # mount_setattr(2)
_UNPRIVILEGED_FLAGS = {
    os.ST_RDONLY: "ro",
    os.ST_NOSUID: "nosuid",
    os.ST_NODEV: "nodev",
    os.ST_NOEXEC: "noexec",
    os.ST_NOATIME: "noatime",
    os.ST_NODIRATIME: "nodiratime",
    os.ST_RELATIME: "relatime",
}
_WRITABLE_UNDER_READ_ONLY_ROOT = {"/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"}


def container_mounts(container: SpecInput, host: HostFacts) -> tuple[list[dict[str, Any]], str]:
    """The `mounts` list and the root's propagation, which is empty unless a mount needs one.

    Raises InvalidParameter with moby's messages for a propagation the source cannot have, or a forced
    recursive read-only mount on a host that has none.
    """
    host_config = container.host_config
    asked = _asked(container)
    destinations = {mount.destination for mount in asked}
    mounts = [
        entry for entry in defaults.mounts() if not _replaced(entry["destination"], destinations, container)
    ]
    for entry in mounts:
        if entry["destination"] == "/dev/shm" and host_config.ShmSize > 0:
            entry["options"].append(f"size={host_config.ShmSize}")
    propagation = ""
    for mount in asked:
        propagation = _root_propagation(mount, propagation)
        mounts.append(_entry(mount, container, host))

    if host_config.ReadonlyRootfs:
        for entry in mounts:
            where = entry["destination"]
            if where not in _WRITABLE_UNDER_READ_ONLY_ROOT | destinations and "ro" not in entry["options"]:
                entry["options"].append("ro")
    if host_config.Privileged:
        _make_writable(mounts, "sysfs")
    writable_cgroups = parse_security_options(host_config.SecurityOpt).writable_cgroups
    if writable_cgroups is None:
        writable_cgroups = host_config.Privileged or remapped(container)
    if writable_cgroups:
        _make_writable(mounts, "cgroup")
    return mounts, propagation


def _asked(container: SpecInput) -> list[ResolvedMount]:
    mounts = list(container.mounts)
    taken = {mount.destination for mount in mounts}
    files = (
        (container.resolv_conf_path, "/etc/resolv.conf"),
        (container.hostname_path, "/etc/hostname"),
        (container.hosts_path, "/etc/hosts"),
    )
    for source, destination in files:
        if source and destination not in taken:
            writable = not container.host_config.ReadonlyRootfs
            mounts.append(ResolvedMount(source, destination, rw=writable, propagation="rprivate"))
    if container.shm_path is not None and "/dev/shm" not in taken:
        mounts.append(ResolvedMount(container.shm_path, "/dev/shm", propagation="rprivate"))
    # What lies deeper is mounted later, or it would be hidden.
    return sorted(mounts, key=lambda mount: len([part for part in mount.destination.split("/") if part]))


def _replaced(destination: str, asked: set[str], container: SpecInput) -> bool:
    if destination in asked:
        return True
    if "/dev" in asked and destination.startswith("/dev/"):
        return True
    return destination == "/dev/shm" and container.host_config.IpcMode == "none"


def _entry(mount: ResolvedMount, container: SpecInput, host: HostFacts) -> dict[str, Any]:
    if mount.type == "tmpfs":
        given = [option for text in mount.options for option in text.split(",") if option]
        options = merge_tmpfs_options(["noexec", "nosuid", "nodev", "rprivate", *given])
        if not mount.rw and "ro" not in options:
            options.append("ro")
        return {"destination": mount.destination, "type": "tmpfs", "source": "tmpfs", "options": options}
    options = ["bind" if mount.non_recursive else "rbind"]
    if remapped(container):
        options += _locked_flags(mount.source)
    if not mount.rw:
        options.append("rro" if _recursive_read_only(mount, container, host) else "ro")
    if mount.propagation:  # volumes have none, and are slaves with the root
        options.append(mount.propagation)
    return {
        "destination": mount.destination,
        "type": "bind",
        "source": mount.source,
        "options": options,
    }


def _locked_flags(source: str) -> list[str]:
    """Flags of the source's mount that no user namespace may take off; see mount_namespaces(7)."""
    flags = os.statvfs(source).f_flag
    return [name for bit, name in _UNPRIVILEGED_FLAGS.items() if flags & bit]


def _recursive_read_only(mount: ResolvedMount, container: SpecInput, host: HostFacts) -> bool:
    if mount.read_only_non_recursive:
        if mount.read_only_force_recursive:
            raise InvalidParameter("mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive")
        return False
    lacking = "the kernel" if host.kernel < _RECURSIVE_READ_ONLY_SINCE else ""
    if not container.runtime_recursive_read_only:
        lacking = f'runtime "{container.host_config.Runtime}"'
    if mount.read_only_force_recursive and lacking:
        raise InvalidParameter(f"rro is not supported by {lacking}")
    return not lacking


def _root_propagation(mount: ResolvedMount, present: str) -> str:
    """What the root's propagation must be so that this mount's can work."""
    kind = mount.propagation.removeprefix("r") if mount.type == "bind" else ""
    if kind == "shared":
        _require_source(mount, ("shared:",), "a shared mount")
        return present if present in ("shared", "rshared") else "shared"
    if kind == "slave":
        try:
            _require_source(mount, ("shared:", "master:"), "a shared or slave mount")
        except InvalidParameter:
            if mount.propagation_optional:
                return present
            raise
        return present if present in ("shared", "rshared", "slave", "rslave") else "rslave"
    return present


def _require_source(mount: ResolvedMount, fields: tuple[str, ...], what: str) -> None:
    points = {point.target: point for point in mountinfo()}
    path = os.path.realpath(mount.source)
    while path not in points and path != "/":
        path = os.path.dirname(path)  # noqa: PTH120 - a string walk, nothing is looked up
    point = points.get(path)
    if point is None or not any(word.startswith(fields) for word in point.propagation.split()):
        raise InvalidParameter(f"path {mount.source} is mounted on {path} but it is not {what}")


def _make_writable(mounts: list[dict[str, Any]], kind: str) -> None:
    for entry in mounts:
        if entry["type"] == kind:
            entry["options"] = [option for option in entry["options"] if option != "ro"]
