"""The local driver's options `type`, `o` and `device`: a file system mounted while somebody uses it."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from longshore.errors import InvalidParameter, System
from longshore.linux.mount import MountFlags, UnmountFlags, is_mount_point, mount, umount

_VALID = ("type", "o", "device", "size")
_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}

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
    if options.get("type") == "cifs" and ":" in urlsplit(options.get("device", "")).netloc:
        raise InvalidParameter("port not allowed in CIFS device URL, include 'port' in 'o='")
    if _size(options.get("size", "0")):
        raise InvalidParameter("quota size requested but no quota support")
    for name, needed in _NEEDS.items():
        for other in needed:
            if name in options and other not in options:
                raise InvalidParameter(f'missing required option: "{other}"')


def _size(text: str) -> int:
    # go-units' RAMInBytes
    match = re.fullmatch(r"(\d+(?:\.\d+)*) ?([kKmMgGtTpP])?[iI]?[bB]?", text)
    if match is None:
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** " kmgtp".index((match[2] or " ").lower()))


def needs_mount(options: Mapping[str, str]) -> bool:
    """Whether the options name anything to be mounted."""
    return bool(options.get("type") or options.get("device"))


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
                raise System(
                    f"error while mounting volume '{self._target}': failed to mount local volume: "
                    f"{self._described()}: {problem}"
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

    def _described(self) -> str:
        """As moby describes a mount that failed."""
        flags, data = self._parse()
        shown = f"mount {self._options.get('device', '')}:{self._target}"
        return shown + (f", flags: {int(flags):#x}" if flags else "") + (f", data: {data}" if data else "")

    def _mount(self) -> None:
        flags, data = self._parse()
        kind, device = self._options.get("type", ""), self._options.get("device", "")
        if kind in ("nfs", "nfs4", "cifs"):
            try:
                device, data = _resolve_address(kind, device, data)
            except (OSError, UnicodeError) as exc:
                raise System(
                    f"error while mounting volume '{self._target}': "
                    f"error resolving passed in network volume address: {exc}"
                ) from exc
        mount(device, self._target, "" if flags & MountFlags.BIND else kind, flags, data)
        if flags & MountFlags.BIND and flags & ~(MountFlags.BIND | MountFlags.REC):
            # The kernel ignores other flags on a bind: they need a remount.
            try:
                mount("", self._target, "", flags | MountFlags.REMOUNT)
            except BaseException:
                umount(self._target, UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)
                raise


def _resolve_address(kind: str, device: str, data: str) -> tuple[str, str]:
    """Device and data with a number for a name. Raises OSError, UnicodeError."""
    # The kernel wants a number in addr=; mount.nfs(8), which is not asked here, would have looked it up.
    match = re.search(r"(?:^|,)addr=([^,]+)", data)
    if match is not None:
        return device, data.replace(f"addr={match[1]}", f"addr={_address(match[1])}", 1)
    host = urlsplit(device).hostname if kind == "cifs" else None
    return (device.replace(host, _address(host), 1) if host else device), data


def _address(host: str) -> str:
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
