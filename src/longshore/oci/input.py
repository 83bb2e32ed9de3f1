"""What a runtime specification is made from: everything resolved by the engine beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from longshore.types.container import Config, HostConfig
from longshore.types.resources import Ulimit


@dataclass(frozen=True)
class ResolvedMount:
    """A mount whose source exists on the host: `bind` from `source`, or `tmpfs` with `options`."""

    source: str
    destination: str
    type: Literal["bind", "tmpfs"] = "bind"
    rw: bool = True
    propagation: str = ""
    propagation_optional: bool = False
    """Nobody asked for it: a source that cannot propagate is no error."""
    options: tuple[str, ...] = ()
    """tmpfs: mount options as the user wrote them, e.g. `size=64m`."""
    non_recursive: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


@dataclass(frozen=True)
class IDMap:
    """A range of ids of a user namespace, as in /proc/<pid>/uid_map."""

    container_id: int
    host_id: int
    size: int


@dataclass(frozen=True)
class SpecInput:
    """A container on the point of starting. Paths are the host's.

    A namespace given as a path belongs to another container (or was made beforehand); "host" is the
    machine's own; None is a new one.
    """

    id: str
    config: Config
    host_config: HostConfig
    rootfs: Path
    hostname: str = ""
    """Empty: `config.Hostname`."""
    mounts: tuple[ResolvedMount, ...] = ()
    hostname_path: str = ""
    hosts_path: str = ""
    resolv_conf_path: str = ""
    shm_path: str | None = None
    """A shared memory file system to bind on /dev/shm; None makes a private one."""
    network_namespace: str | None = None
    pid_namespace: str | None = None
    ipc_namespace: str | None = None
    uts_namespace: str | None = None
    user_namespace: str | None = None
    uid_mappings: tuple[IDMap, ...] = ()
    gid_mappings: tuple[IDMap, ...] = ()
    link_env: tuple[str, ...] = ()
    """Variables of linked containers, `NAME=value`."""
    secret_env: tuple[str, ...] = ()
    """Variables that are in no record, `NAME=value`; they go before all others."""
    path: str = ""
    """The program, as recorded at creation; empty: found from `config`."""
    args: tuple[str, ...] = ()
    default_cgroup_parent: str = ""
    cgroup_driver: str = ""
    """`cgroupfs` or `systemd`; empty: the host's default."""
    seccomp_profile: str | None = None
    """A profile as JSON, "unconfined", "builtin", or None: as the security options say."""
    daemon_seccomp_profile: str = ""
    """The daemon's own default: empty or "builtin", "unconfined", or JSON."""
    apparmor_profile: str | None = None
    """None: what the security options say, else `docker-default` where AppArmor is enabled."""
    no_new_privileges: bool = False
    """The daemon's default; a security option overrides it."""
    process_label: str = ""
    mount_label: str = ""
    init: bool = False
    """The daemon's default; `host_config.Init` overrides it."""
    init_path: str = ""
    default_ulimits: tuple[Ulimit, ...] = field(default=())
    cdi_spec_dirs: tuple[str, ...] = ()
    """Where vendors describe their devices; later ones go first."""
    runtime_recursive_read_only: bool = True
    """Whether the OCI runtime knows the mount option `rro` (runc since 1.1, crun since 1.8.5)."""
