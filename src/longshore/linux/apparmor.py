"""AppArmor's profiles in the kernel: which are loaded, and loading one.

The kernel takes compiled profiles only; apparmor_parser(8) compiles. Everything here blocks.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from longshore.errors import System

PARSER = Path("/sbin/apparmor_parser")
POLICY = Path("/etc/apparmor.d")
_KERNEL = Path("/sys/kernel/security/apparmor")


def enabled() -> bool:
    """Whether profiles can be applied: the kernel confines, and there is a parser to load any."""
    return in_kernel() and PARSER.exists()


def in_kernel() -> bool:
    """Whether the kernel confines by profiles."""
    try:
        switched_on = Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False
    return switched_on and _KERNEL.is_dir()


def is_loaded(name: str) -> bool:
    """Whether the kernel has the profile. Raises System if it does not tell."""
    try:
        with (_KERNEL / "profiles").open() as profiles:
            return any(line.startswith(f"{name} (") for line in profiles)
    except OSError as exc:
        raise System(f"cannot read AppArmor's profiles: {exc.strerror}") from exc


def load(policy: str) -> None:
    """Load policy, in place of profiles of the same names. Raises System with the parser's words."""
    try:
        # -K: without the cache below /var/cache, which is for what comes with the boot.
        done = subprocess.run(
            [PARSER, "-Kr"], input=policy, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise System(f"running `{PARSER} -Kr` failed: {exc}") from exc
    if done.returncode != 0:
        raise System(f"running `{PARSER} -Kr` failed with output: {done.stderr or done.stdout}")


def own_profile() -> str:
    """The name of the profile that confines this process; `unconfined` if none does."""
    for path in ("/proc/self/attr/apparmor/current", "/proc/self/attr/current"):
        try:
            # The mode follows in brackets: `name (enforce)`.
            return Path(path).read_text().rstrip("\0\n").partition(" (")[0] or "unconfined"
        except OSError:
            continue
    return "unconfined"
