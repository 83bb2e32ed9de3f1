"""Capabilities by name; see capabilities(7) and linux/capability.h."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from longshore.errors import InvalidParameter

NAMES = tuple(
    "CAP_" + name
    for name in (  # noqa: SIM905 - a table reads better in rows
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
        "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
        "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
        "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
"""Every capability, at the index that is its number in the kernel."""


def of_process(status: str = "/proc/self/status") -> dict[str, frozenset[str]]:
    """The `effective`, `permitted`, `inheritable`, `bounding` and `ambient` sets of a process."""
    masks = dict(
        line.split(":\t", 1) for line in Path(status).read_text().splitlines() if line.startswith("Cap")
    )
    keys = {
        "effective": "CapEff",
        "permitted": "CapPrm",
        "inheritable": "CapInh",
        "bounding": "CapBnd",
        "ambient": "CapAmb",
    }
    return {name: from_mask(int(masks[key], 16)) for name, key in keys.items()}


def from_mask(mask: int) -> frozenset[str]:
    """The names of the bits set; bits newer than this table are left out."""
    return frozenset(name for number, name in enumerate(NAMES) if mask >> number & 1)


def normalize(names: Iterable[str]) -> list[str]:
    """Upper-case and prefix names as users write them; `ALL` stays as it is.

    Raises InvalidParameter for a name no kernel knows.
    """
    normal = []
    for name in names:
        upper = name.upper()
        if upper == "ALL":
            normal.append("ALL")
            continue
        if not upper.startswith("CAP_"):
            upper = "CAP_" + upper
        if upper not in NAMES:
            raise InvalidParameter(f'invalid capability: "{name}"')
        normal.append(upper)
    return normal
