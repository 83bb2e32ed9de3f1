"""The local driver's options `type`, `o` and `device`: a file system mounted while somebody uses it."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from longshore.config.options import parse_bytes
from longshore.errors import InvalidParameter, System
from longshore.linux.mount import MountFlags, UnmountFlags, mount, mount_id, umount

_VALID = ("type", "o", "device", "size")
_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}

_FLAGS = {
    "ro": MountFlags.RDONLY,
    "nosuid": MountFlags.NOSUID,
    "nodev": MountFlags.NODEV,
    "noexec": MountFlags.NOEXEC,
    "sync": MountFlags.SYNCHRONOUS,
    "dirsync": MountFlags.DIRSYNC,
    "remount": MountFlags.REMOUNT,
    "mand": MountFlags.MANDLOCK,
    "noatime": MountFlags.NOATIME,
    "nodiratime": MountFlags.NODIRATIME,
    "relatime": MountFlags.RELATIME,
    "strictatime": MountFlags.STRICTATIME,
    "bind": MountFlags.BIND,
    "rbind": MountFlags.BIND | MountFlags.REC,
    "unbindable": MountFlags.UNBINDABLE,
    "runbindable": MountFlags.UNBINDABLE | MountFlags.REC,
    "private": MountFlags.PRIVATE,
    "rprivate": MountFlags.PRIVATE | MountFlags.REC,
    "shared": MountFlags.SHARED,
    "rshared": MountFlags.SHARED | MountFlags.REC,
    "slave": MountFlags.SLAVE,
    "rslave": MountFlags.SLAVE | MountFlags.REC,
}
_CLEARING = {
    "rw": MountFlags.RDONLY,
    "suid": MountFlags.NOSUID,
    "dev": MountFlags.NODEV,
    "exec": MountFlags.NOEXEC,
    "async": MountFlags.SYNCHRONOUS,
    "nomand": MountFlags.MANDLOCK,
    "atime": MountFlags.NOATIME,
    "diratime": MountFlags.NODIRATIME,
    "norelatime": MountFlags.RELATIME,
    "nostrictatime": MountFlags.STRICTATIME,
    "defaults": MountFlags(0),
}
_PROPAGATION = MountFlags.UNBINDABLE | MountFlags.PRIVATE | MountFlags.SHARED | MountFlags.SLAVE


def check_options(options: Mapping[str, str]) -> None:
    """Raise InvalidParameter with moby's messages unless the options can mount something."""
    for name in options:
        if name not in _VALID:
            raise InvalidParameter(f'invalid option: "{name}"')
    if options.get("type") == "cifs" and ":" in urlsplit(options.get("device", "")).netloc:
        raise InvalidParameter("port not allowed in CIFS device URL, include 'port' in 'o='")
    size_limit(options)
    for name, needed in _NEEDS.items():
        for other in needed:
            if name in options and other not in options:
                raise InvalidParameter(f'missing required option: "{other}"')


def size_limit(options: Mapping[str, str]) -> int:
    """Bytes that the volume may take, 0 for as many as there are. Raises InvalidParameter."""
    return parse_bytes(options.get("size", "0"))


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
        return mount_id(self._target) != mount_id(self._target.parent)

    @property
    def is_used(self) -> bool:
        """Whether anybody has it, as far as this daemon knows."""
        return bool(self._users)

    def acquire(self, name: str, user: str) -> None:
        """Mount unless it is. Raises System with dockerd's message."""
        if not self._users:
            try:
                if not self.is_mounted():
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
        try:
            if self.is_mounted():
                umount(self._target, UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)
        except OSError as exc:
            raise System(f"error while unmounting volume '{self._target}': {exc.strerror}") from exc
        return True

    def _described(self) -> str:
        """As moby describes a mount that failed, passwords left out."""
        flags, data = parse_options(self._options.get("o", ""))
        data = re.sub(r"(^|,)(pass(?:word2?)?)=[^,]*", r"\1\2=********", data)
        shown = f"mount {self._options.get('device', '')}:{self._target}"
        return shown + (f", flags: {int(flags):#x}" if flags else "") + (f", data: {data}" if data else "")

    def _mount(self) -> None:
        try:
            device, kind, flags, data = mount_arguments(self._options)
        except (OSError, UnicodeError) as exc:
            raise System(
                f"error while mounting volume '{self._target}': "
                f"error resolving passed in network volume address: {exc}"
            ) from exc
        plain = flags & ~_PROPAGATION
        mount(device, self._target, kind, plain, data)
        try:
            if plain & MountFlags.BIND and plain & ~(MountFlags.BIND | MountFlags.REC):
                # The kernel ignores other flags on a bind: they need a remount.
                mount("", self._target, "", plain | MountFlags.REMOUNT)
            if flags & _PROPAGATION:
                mount("", self._target, "", flags & (_PROPAGATION | MountFlags.REC))
        except BaseException:
            umount(self._target, UnmountFlags.DETACH | UnmountFlags.NOFOLLOW)
            raise


def parse_options(text: str) -> tuple[MountFlags, str]:
    """Flags and data of mount(2), from options as mount(8) takes them."""
    flags, data = MountFlags(0), []
    for option in filter(None, text.split(",")):
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option in _CLEARING:
            flags &= ~_CLEARING[option]
        else:
            data.append(option)
    return flags, ",".join(data)


def mount_arguments(options: Mapping[str, str]) -> tuple[str, str, MountFlags, str]:
    """Device, kind, flags and data of mount(2), numbers in place of names. Raises OSError, UnicodeError."""
    flags, data = parse_options(options.get("o", ""))
    kind, device = options.get("type", ""), options.get("device", "")
    if kind in ("nfs", "nfs4", "cifs"):
        device, data = _resolve_address(kind, device, data)
    return device, "" if flags & MountFlags.BIND else kind, flags, data


def _resolve_address(kind: str, device: str, data: str) -> tuple[str, str]:
    # The kernel wants a number in addr=; mount.nfs(8), which is not asked here, would have looked it up.
    match = re.search(r"(^|,)addr=([^,]+)", data)
    if match is not None:
        return device, data[: match.start(2)] + _address(match[2]) + data[match.end(2) :]
    host = urlsplit(device).hostname if kind == "cifs" else None
    return (device.replace(host, _address(host), 1) if host else device), data


def _address(host: str) -> str:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # Go prefers IPv4, too.
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])
