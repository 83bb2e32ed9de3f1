"""`--userns-remap`: containers whose root is an ordinary user of the host.

As dockerd: the remapped engine keeps everything in a directory of its own below the data root, named after
the host ids of the containers' root; ranges come from subuid(5) and subgid(5).
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from pathlib import Path
from typing import NamedTuple

from longshore.errors import InvalidParameter, System
from longshore.layers.idmap import IdRange
from longshore.types.numbers import decimal

DEFAULT_USER = "dockremap"
"""What `default` stands for; made if it is missing, as dockerd does."""


class Remapping(NamedTuple):
    """The user namespace that containers get; without ranges they share the host's."""

    uids: list[IdRange]
    gids: list[IdRange]

    @property
    def root(self) -> tuple[int, int]:
        """Host ids of the containers' root."""
        return (self.uids[0].host, self.gids[0].host) if self.uids else (0, 0)


NOT_REMAPPED = Remapping([], [])


def parse_remapping(text: str) -> Remapping:
    """`default`, `user`, `uid`, `user:group` … to ranges. Raises InvalidParameter with what is missing."""
    if not text:
        return NOT_REMAPPED
    if text == "default":
        _make_default_user()
        text = DEFAULT_USER
    user_name, colon, group_name = text.partition(":")
    user = _user(user_name)
    group = _group(group_name) if colon else _group(user.pw_name if user.pw_name else str(user.pw_gid))
    if user.pw_name == "root":
        return NOT_REMAPPED  # dockerd: remapping root to itself is no remapping
    return Remapping(
        _ranges(Path("/etc/subuid"), user.pw_name, user.pw_uid),
        _ranges(Path("/etc/subgid"), group.gr_name, group.gr_gid),
    )


def remapped_data_root(data_root: Path, remapping: Remapping) -> Path:
    """The directory of the remapped engine, which its containers' root may pass through. Raises OSError."""
    if not remapping.uids:
        return data_root
    uid, gid = remapping.root
    # Passage for everyone, sight for nobody: each remapped root has to reach its own directory.
    data_root.chmod(0o711)
    root = data_root / f"{uid}.{gid}"
    root.mkdir(mode=0o710, exist_ok=True)
    os.chown(root, 0, gid)
    for name in ("containers", "volumes"):
        (root / name).mkdir(mode=0o711, exist_ok=True)
        os.chown(root / name, 0, gid)
    return root


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name) if (id := decimal(name)) is None else pwd.getpwuid(id)
    except (KeyError, OverflowError):
        raise InvalidParameter(
            f"error during lookup of user {name!r} for userns-remap: no such user"
        ) from None


def _group(name: str) -> grp.struct_group:
    try:
        return grp.getgrnam(name) if (id := decimal(name)) is None else grp.getgrgid(id)
    except (KeyError, OverflowError):
        raise InvalidParameter(
            f"error during lookup of group {name!r} for userns-remap: no such group"
        ) from None


def _ranges(path: Path, name: str, number: int) -> list[IdRange]:
    """The ranges of one owner, laid out one behind the other from the container's id 0."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        lines = []
    ranges: list[IdRange] = []
    first = 0
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in (name, str(number)):
            ranges.append(IdRange(first, int(fields[1]), int(fields[2])))
            first += int(fields[2])
    if not ranges:
        raise InvalidParameter(
            f"can't create ID mappings: no subordinate ids found for {name!r} in {path}: "
            f"add a line such as {name}:100000:65536"
        )
    return ranges


def _make_default_user() -> None:
    try:
        pwd.getpwnam(DEFAULT_USER)
    except KeyError:
        made = subprocess.run(
            ["useradd", "--system", "--user-group", "--no-create-home", DEFAULT_USER],
            capture_output=True,
            check=False,
        )
        if made.returncode:
            raise System(f"cannot make the user {DEFAULT_USER}: {made.stderr.decode().strip()}") from None
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        lines = path.read_text().splitlines() if path.exists() else []
        if any(line.startswith(f"{DEFAULT_USER}:") for line in lines):
            continue
        taken = [int(f[1]) + int(f[2]) for line in lines if len(f := line.split(":")) == 3]
        with path.open("a") as file:
            file.write(f"{DEFAULT_USER}:{max([100000, *taken])}:65536\n")
