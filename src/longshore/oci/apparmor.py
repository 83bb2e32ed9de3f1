"""Which AppArmor profile confines the container, and the one that confines those that name none."""

from __future__ import annotations

from longshore.errors import System
from longshore.linux import apparmor
from longshore.linux.host import HostFacts
from longshore.oci.input import SpecInput

DEFAULT_PROFILE = "docker-default"


def apparmor_profile(container: SpecInput, asked: str, host: HostFacts) -> str:
    """The profile's name; empty where AppArmor is not enabled.

    Raises System if a profile was asked for by name on a host without AppArmor.
    """
    profile = container.apparmor_profile or asked
    if not host.apparmor:
        if profile and profile != "unconfined":
            raise System(
                f'apparmor profile "{profile}" was asked for, but AppArmor is not enabled on this host'
            )
        return ""
    if profile:
        return profile
    return "unconfined" if container.host_config.Privileged else DEFAULT_PROFILE


def ensure_default_profile() -> None:
    """Load the default profile unless it is there. Blocks. Raises System.

    It is not among those that come with the boot, and an upgrade of the host's policy may unload it.
    """
    if apparmor.is_loaded(DEFAULT_PROFILE):
        return
    try:
        apparmor.load(default_policy(DEFAULT_PROFILE))
    except System as exc:
        raise System(
            f"AppArmor enabled on system but the {DEFAULT_PROFILE} profile could not be loaded: {exc.message}"
        ) from exc


def default_policy(name: str) -> str:
    """dockerd's default profile, as policy for the parser at hand; apparmor.d(5) is the language."""
    variables, base, abi = "@{PROC}=/proc/", "", ""
    if (apparmor.POLICY / "tunables/global").exists():
        variables = "#include <tunables/global>"
    if (apparmor.POLICY / "abstractions/base").exists():
        base = "#include <abstractions/base>"
    if (apparmor.POLICY / "abi/3.0").exists():
        # In later ones `network` is without sockets of AF_UNIX.
        abi = "abi <abi/3.0>,"
    senders = sorted({"unconfined", "runc", "crun", apparmor.own_profile()})
    signals = "\n".join(f"  signal (receive) peer={sender}," for sender in senders)
    return f"""{abi}
{variables}

profile {name} flags=(attach_disconnected,mediate_deleted) {{
  {base}
  network,
  capability,
  file,
  umount,
  deny mount,

  # Who runs containers may signal them, and they each other; the same for ps and debuggers inside.
{signals}
  signal (send,receive) peer={name},
  ptrace (trace,read,tracedby,readby) peer={name},

  # Of /proc a container may write to its processes', and of /proc/sys to kernel/shm* alone. The language has
  # no "all but": each pattern is for names that differ in one more letter, or are shorter.
  deny @{{PROC}}/* w,
  deny @{{PROC}}/{{[^1-9/],[^1-9/][^0-9/],[^1-9s/][^0-9y/][^0-9s/],[^1-9/][^0-9/][^0-9/][^0-9/]*}}/** w,
  deny @{{PROC}}/sys/[^k]** w,
  deny @{{PROC}}/sys/kernel/{{?,??,[^s][^h][^m]**}} w,
  deny @{{PROC}}/{{sysrq-trigger,kcore}} rwklx,

  # Of /sys, to what is below fs/cgroup.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/{{firmware,devices/virtual/powercap,kernel/security}}/** rwklx,
}}
"""
