"""Who the container's process is: `--user` and `--group-add`, looked up in the image's own files.

Follows github.com/moby/sys/user, messages included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from longshore.errors import InvalidParameter, System
from longshore.linux.rootfs_open import read_in_root

_MAX_ID = 2**31 - 1


class _User(NamedTuple):
    name: str
    uid: int
    gid: int


class _Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(rootfs: Path, user: str, group_add: Sequence[str]) -> dict[str, Any]:
    """The `process.user` object for `user`: empty, `name`, `uid`, each with `:group` or `:gid`.

    Raises InvalidParameter if a name is not in /etc/passwd or /etc/group, or an id is out of range.
    """
    user_part, _, group_part = user.partition(":")
    users, groups = _users(rootfs), _groups(rootfs)
    uid, gid, name = _find_user(users, user_part)
    supplementary: list[int] = []
    if group_part:
        gid = _find_group(groups, group_part)
    elif name:
        supplementary = [group.gid for group in groups if name in group.members]
    added = [_additional_group(groups, group) for group in group_add]
    return {"uid": uid, "gid": gid, "additionalGids": list(dict.fromkeys([gid, *supplementary, *added]))}


def _find_user(users: list[_User], wanted: str) -> tuple[int, int, str]:
    number = _number(wanted)
    for entry in users:
        # A name made of digits wins over the same number as an id; an empty user is root.
        if entry.name == wanted if wanted else entry.uid == 0:
            return entry.uid, entry.gid, entry.name
    if not wanted:
        return 0, 0, ""
    if number is None:
        raise InvalidParameter(f"unable to find user {wanted}: no matching entries in passwd file")
    for entry in users:
        if entry.uid == number:
            return entry.uid, entry.gid, entry.name
    return _in_range(number), 0, ""


def _find_group(groups: list[_Group], wanted: str) -> int:
    for entry in groups:
        if entry.name == wanted:
            return entry.gid
    number = _number(wanted)
    if number is None:
        raise InvalidParameter(f"unable to find group {wanted}: no matching entries in group file")
    return _in_range(number)


def _additional_group(groups: list[_Group], wanted: str) -> int:
    for entry in groups:
        if entry.name == wanted or str(entry.gid) == wanted:
            return entry.gid
    number = _number(wanted)
    if number is None:
        raise InvalidParameter(f"Unable to find group {wanted}")
    return _in_range(number)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() else None


def _in_range(number: int) -> int:
    if not 0 <= number <= _MAX_ID:
        raise InvalidParameter(f"uids and gids must be in range 0-{_MAX_ID}")
    return number


def _users(rootfs: Path) -> list[_User]:
    entries = []
    for fields in _lines(rootfs, "/etc/passwd"):
        uid, gid = _id(fields, 2), _id(fields, 3)
        if fields[0] and uid is not None:
            entries.append(_User(fields[0], uid, gid or 0))
    return entries


def _groups(rootfs: Path) -> list[_Group]:
    entries = []
    for fields in _lines(rootfs, "/etc/group"):
        gid = _id(fields, 2)
        if fields[0] and gid is not None:
            members = tuple(filter(None, fields[3].split(","))) if len(fields) > 3 else ()
            entries.append(_Group(fields[0], gid, members))
    return entries


def _lines(rootfs: Path, path: str) -> list[list[str]]:
    try:
        content = read_in_root(rootfs, path)
    except OSError as exc:
        raise System(f"cannot read {path} of the container: {exc.strerror}") from exc
    text = (content or b"").decode("utf-8", "surrogateescape")
    return [line.strip().split(":") for line in text.splitlines() if line.strip() and line[0] != "#"]


def _id(fields: list[str], position: int) -> int | None:
    return _number(fields[position]) if len(fields) > position else None
