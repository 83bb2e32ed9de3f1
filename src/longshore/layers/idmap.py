"""Mapping ids of a container to ids of the host, for remapped user namespaces."""

from __future__ import annotations

from typing import NamedTuple

from longshore.errors import System


class IdRange(NamedTuple):
    """A line of /proc/<pid>/uid_map."""

    container: int
    host: int
    size: int


class IdMap:
    """No ranges: ids are the host's own."""

    def __init__(self, uids: list[IdRange] | None = None, gids: list[IdRange] | None = None) -> None:
        self.uids = uids or []
        self.gids = gids or []
        self.root = (self.to_host(0, 0)) if uids or gids else (0, 0)
        """Owner and group, on the host, of what belongs to the container's root."""

    def __bool__(self) -> bool:
        return bool(self.uids or self.gids)

    def to_host(self, uid: int, gid: int) -> tuple[int, int]:
        """Raises System, worded as Docker words it, for an id outside the ranges."""
        if not self:
            return uid, gid
        return _map(uid, self.uids, 0, 1), _map(gid, self.gids, 0, 1)

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """The reverse of `to_host`."""
        if not self:
            return uid, gid
        return _map(uid, self.uids, 1, 0), _map(gid, self.gids, 1, 0)


def _map(number: int, ranges: list[IdRange], source: int, target: int) -> int:
    if not ranges:
        return number
    for line in ranges:
        if line[source] <= number < line[source] + line.size:
            return line[target] + number - line[source]
    side = "Container ID" if source == 0 else "Host ID"
    other = "host" if source == 0 else "container"
    raise System(f"{side} {number} cannot be mapped to a {other} ID")
