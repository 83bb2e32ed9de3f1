"""The local driver's options `type`, `o` and `device`: a file system mounted while somebody uses it."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path

from longshore.errors import InvalidParameter, System
from longshore.linux.mount import MountFlags, UnmountFlags, is_mount_point, mount, umount

_VALID = ("type", "o", "device", "size")

_FLAGS = {
    "ro": MountFlags.RDONLY,
    "nosuid": MountFlags.NOSUID,
    "nodev": MountFlags.NODEV,
    "noexec": MountFlags.NOEXEC,
    "sync": MountFlags.SYNCHRONOUS,
    "noatime": MountFlags.NOATIME,
    "nodiratime": MountFlags.NODIRATIME,
    "relatime": MountFlags.RELATIME,
    "strictatime": MountFlags.STRICTATIME,
    "bind": MountFlags.BIND,
    "rbind": MountFlags.BIND | MountFlags.REC,
}
_CLEARING = {
    "rw": MountFlags.RDONLY,
    "suid": MountFlags.NOSUID,
    "dev": MountFlags.NODEV,
    "exec": MountFlags.NOEXEC,
    "async": MountFlags.SYNCHRONOUS,
    "defaults": MountFlags(0),
}


def check_options(options: Mapping[str, str]) -> None:
    """Raise InvalidParameter with moby's messages unless the options can mount something."""
    for name in options:
        if name not in _VALID:
            raise InvalidParameter(f'invalid option: "{name}"')
    if "size" in options:
        raise InvalidParameter("quota size requested but no quota support")
    if not options:
        return
    if not options.get("type") and "bind" not in options.get("o", ""):
        raise InvalidParameter('missing required option: "type"')
    if not options.get("device"):
        raise InvalidParameter('missing required option: "device"')


class LocalMount:
    """A volume's file system and who uses it: mounted for the first, unmounted after the last."""

    def __init__(self, options: Mapping[str, str], target: Path) -> None:
        self._options = options
        self._target = target
        self._users: set[str] = set()

    def is_mounted(self) -> bool:
        """Whether something is mounted on the volume's directory."""
        return is_mount_point(self._target)

    def acquire(self, name: str, user: str) -> None:
        """Mount unless it is. Raises System with dockerd's message."""
        if not self._users and not self.is_mounted():
            try:
                self._mount()
            except OSError as exc:
                problem = (exc.strerror or str(exc)).lower()
                source, kind = self._options.get("device", ""), self._options.get("type", "")
                raise System(
                    f"error while mounting volume '{self._target}': failed to mount local volume: mount "
                    f"{source}:{self._target}, flags: {int(self._parse()[0]):#x}, data: {self._parse()[1]}"
                    f"{', type: ' + kind if kind else ''}: {problem}"
                ) from exc
        self._users.add(user)

    def release(self, user: str) -> bool:
        """Unmount after the last user; True if nobody is left. Raises System."""
        self._users.discard(user)
        if self._users:
            return False
        if self.is_mounted():
            try:
                umount(self._target, UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)
            except OSError as exc:
                raise System(f"error while unmounting volume '{self._target}': {exc.strerror}") from exc
        return True

    def _parse(self) -> tuple[MountFlags, str]:
        flags, data = MountFlags(0), []
        for option in filter(None, self._options.get("o", "").split(",")):
            if option in _FLAGS:
                flags |= _FLAGS[option]
            elif option in _CLEARING:
                flags &= ~_CLEARING[option]
            else:
                data.append(option)
        return flags, ",".join(data)

    def _mount(self) -> None:
        flags, data = self._parse()
        kind, device = self._options.get("type", ""), self._options.get("device", "")
        if kind in ("nfs", "nfs4", "cifs"):
            data = _resolve_address(data)
        mount(device, self._target, "" if flags & MountFlags.BIND else kind, flags, data)
        if flags & MountFlags.BIND and flags & ~(MountFlags.BIND | MountFlags.REC):
            # The kernel ignores other flags on a bind: they need a remount.
            try:
                mount("", self._target, "", flags | MountFlags.REMOUNT)
            except BaseException:
                umount(self._target, UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)
                raise


def _resolve_address(data: str) -> str:
    # The kernel wants a number in addr=; mount.nfs(8), which is not asked here, would have looked it up.
    match = re.search(r"(?:^|,)addr=([^,]+)", data)
    if match is None:
        return data
    found = socket.getaddrinfo(match.group(1), None, type=socket.SOCK_STREAM)
    return data.replace(f"addr={match.group(1)}", f"addr={found[0][4][0]}", 1)
