"""Options of tmpfs mounts: checked, and the last of each kind kept; see tmpfs(5) and moby/sys/mount."""

from __future__ import annotations

from collections.abc import Iterable

from longshore.errors import InvalidParameter

_FLAG_PAIRS = (
    ("ro", "rw"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("noexec", "exec"),
    ("sync", "async"),
    ("mand", "nomand"),
    ("atime", "noatime"),
    ("diratime", "nodiratime"),
    ("relatime", "norelatime"),
    ("strictatime", "nostrictatime"),
)
_PROPAGATIONS = {
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
}
_FLAG_GROUP = {name: min(pair) for pair in _FLAG_PAIRS for name in pair} | dict.fromkeys(
    _PROPAGATIONS, "propagation"
)
_PLAIN_FLAGS = {"defaults", "bind", "rbind", "remount", "dirsync"}
_KEYS = {"mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"}


def merge_tmpfs_options(options: Iterable[str]) -> list[str]:
    """`options` without those that a later one overrides, order kept.

    Raises InvalidParameter with moby's message for an option tmpfs does not know.
    """
    seen: set[str] = set()
    merged: list[str] = []
    for option in reversed(list(options)):
        kind = _kind(option)
        if option == "defaults" or kind in seen:
            continue
        seen.add(kind)
        merged.append(option)
    return merged[::-1]


def _kind(option: str) -> str:
    if option in _FLAG_GROUP:
        return _FLAG_GROUP[option]
    if option in _PLAIN_FLAGS:
        return option
    key, equals, _ = option.partition("=")
    if not equals or key not in _KEYS:
        raise InvalidParameter(f'invalid tmpfs option "{option if not equals else key}"')
    return key
