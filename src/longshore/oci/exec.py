"""The OCI process of an exec: the container's own settings under another command.

Follows moby's daemon/exec_linux.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from longshore.linux.host import HostFacts
from longshore.oci.apparmor import apparmor_profile
from longshore.oci.capabilities import process_capabilities
from longshore.oci.input import SpecInput
from longshore.oci.process import environment, replace_or_append
from longshore.oci.rlimits import rlimits
from longshore.oci.security_options import parse_security_options
from longshore.oci.users import resolve_user


@dataclass(frozen=True)
class ExecInput:
    """What distinguishes an exec from the container's first process. Empty: as that one has it."""

    args: Sequence[str]
    tty: bool = False
    user: str = ""
    env: Sequence[str] = ()
    working_dir: str = ""
    privileged: bool = False
    console_size: tuple[int, int] | None = None
    """Height and width in characters."""


def exec_process(container: SpecInput, host: HostFacts, wanted: ExecInput) -> dict[str, Any]:
    """The process as plain JSON values.

    Reads passwd and group of the container's root file system. Raises InvalidParameter for a user that is
    not there, System for what the daemon cannot give.
    """
    config, host_config = container.config, container.host_config
    security = parse_security_options(host_config.SecurityOpt)
    user = resolve_user(container.rootfs, wanted.user or config.User, host_config.GroupAdd or [])
    no_new_privileges = security.no_new_privileges
    process: dict[str, Any] = {
        "terminal": wanted.tty,
        "user": user,
        "args": list(wanted.args),
        "env": exec_environment(container, wanted),
        "cwd": wanted.working_dir or config.WorkingDir or "/",
        "capabilities": _capabilities(container, host, wanted, root=user["uid"] == 0),
        "noNewPrivileges": container.no_new_privileges if no_new_privileges is None else no_new_privileges,
    }
    if wanted.tty and wanted.console_size is not None:
        height, width = wanted.console_size
        process["consoleSize"] = {"height": height, "width": width}
    if limits := rlimits(host_config, container.default_ulimits, host):
        process["rlimits"] = limits
    # An exec that is privileged keeps the container's profile, as in dockerd.
    if profile := apparmor_profile(container, security.apparmor, host):
        process["apparmorProfile"] = profile
    if container.process_label:
        process["selinuxLabel"] = container.process_label
    return process


def exec_environment(container: SpecInput, wanted: ExecInput) -> list[str]:
    """The container's variables with those of the exec in their place; TERM only on a terminal."""
    config = container.config
    plain = SpecInput(
        id=container.id,
        config=msgspec.structs.replace(config, Tty=wanted.tty),
        host_config=container.host_config,
        rootfs=container.rootfs,
        hostname=container.hostname,
        link_env=container.link_env,
    )
    return replace_or_append(environment(plain), wanted.env)


def _capabilities(
    container: SpecInput, host: HostFacts, wanted: ExecInput, *, root: bool
) -> dict[str, list[str]]:
    if not wanted.privileged:
        return process_capabilities(container.host_config, host, root=root)
    everything = msgspec.structs.replace(container.host_config, Privileged=True)
    return process_capabilities(everything, host, root=True)
