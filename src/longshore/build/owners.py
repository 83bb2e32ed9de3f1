"""`--chown`: names looked up in the image's own files, as the classic builder does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from longshore.errors import InvalidParameter
from longshore.linux.rootfs_open import read_in_root
from longshore.types.numbers import decimal


class Owner(NamedTuple):
    """As the container numbers them."""

    uid: int
    gid: int


ROOT = Owner(0, 0)


def parse_owner(text: str, root: Path) -> Owner:
    """`user`, or `user:group`, by name or number. Without a group, the group is called as the user is.

    Raises InvalidParameter.
    """
    parts = text.split(":")
    if len(parts) > 2 or not parts[0]:
        raise InvalidParameter(f"invalid chown string format: {text}")
    user, group = parts[0], (parts[1] if len(parts) > 1 else "") or parts[0]
    return Owner(_look_up(user, root, "passwd", "user"), _look_up(group, root, "group", "group"))


def _look_up(name: str, root: Path, file: str, kind: str) -> int:
    number = decimal(name)
    if number is not None and number < 1 << 31:
        return number
    content = read_in_root(root, f"/etc/{file}")
    for line in (content or b"").decode("utf-8", "surrogateescape").splitlines():
        fields = line.strip().split(":")
        if len(fields) > 2 and fields[0] == name and (id := decimal(fields[2])) is not None:
            return id
    short = "uid" if kind == "user" else "gid"
    raise InvalidParameter(
        f"unable to convert uid/gid chown string to host mapping: can't find {short} for {kind} {name}: "
        f"no such {kind}: {name}"
    )
