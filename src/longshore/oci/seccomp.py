"""System call filters: a profile in Docker's format, made concrete for this container and machine.

Docker's format is OCI's with conditions on a rule: architectures, capabilities the container has, and the
kernel. https://docs.docker.com/engine/security/seccomp/
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import Any

from longshore.errors import System
from longshore.linux.host import HostFacts
from longshore.oci.input import SpecInput

# What machines are called: uname(2), libseccomp, Go.
_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"),
    "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "armv7l": ("SCMP_ARCH_ARM", "arm"),
    "i686": ("SCMP_ARCH_X86", "x86"),
    "ppc64le": ("SCMP_ARCH_PPC64LE", "ppc64le"),
    "s390x": ("SCMP_ARCH_S390X", "s390x"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv64"),
}
_BUILTIN = ("", "builtin", "default")


def seccomp(
    container: SpecInput, asked: str, host: HostFacts, capabilities: frozenset[str]
) -> dict[str, Any] | None:
    """The `linux.seccomp` object; None leaves the container unconfined.

    `asked` is what the security options say. Raises System for a profile that cannot be read, or a profile of
    the user's on a kernel without seccomp.
    """
    profile = container.seccomp_profile if container.seccomp_profile is not None else asked
    custom = profile not in _BUILTIN
    if profile == "unconfined" or (container.host_config.Privileged and not custom):
        return None
    if not host.seccomp:
        if custom:
            raise System("seccomp is not enabled in your kernel, cannot run a custom seccomp profile")
        return None
    if not profile:
        profile = container.daemon_seccomp_profile
        if profile == "unconfined":
            return None
    if profile in _BUILTIN:
        return _builtin(host.architecture, host.kernel, capabilities, host.x32)
    return resolve_profile(profile, host.architecture, host.kernel, capabilities)


def resolve_profile(
    text: str, architecture: str, kernel: tuple[int, int], capabilities: Collection[str]
) -> dict[str, Any]:
    """Keep the rules of a profile that apply here, in OCI's form. Raises System if it is no such profile."""
    try:
        profile = json.loads(text)
    except ValueError as exc:
        raise System(f"Decoding seccomp profile failed: {exc}") from exc
    if not isinstance(profile, dict):
        raise System("Decoding seccomp profile failed: it must be an object")
    if profile.get("architectures") and profile.get("archMap"):
        raise System(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use one of them"
        )
    machine, go_name = _ARCHITECTURES.get(architecture, ("", architecture))
    result: dict[str, Any] = {"defaultAction": profile.get("defaultAction", "")}
    for key in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(key) is not None:
            result[key] = profile[key]
    if architectures := profile.get("architectures") or _sub_architectures(profile, machine):
        result["architectures"] = architectures
    rules = []
    for rule in profile.get("syscalls") or []:
        if _applies(rule, go_name, kernel, capabilities):
            rules.append(_concrete(rule))
    result["syscalls"] = rules
    return result


@cache
def _builtin(
    architecture: str, kernel: tuple[int, int], capabilities: frozenset[str], x32: bool
) -> dict[str, Any]:
    # Cached: nearly all containers of a machine have the same, and nobody changes it.
    text = resources.files(__package__).joinpath("seccomp_default.json").read_text()
    resolved = resolve_profile(text, architecture, kernel, capabilities)
    if not x32 and "architectures" in resolved:
        # libseccomp would spend 2 ms on it at every start and exec, for calls that this kernel does not
        # answer. Without them the filter kills who makes one.
        resolved["architectures"] = [name for name in resolved["architectures"] if name != "SCMP_ARCH_X32"]
    return resolved


def _sub_architectures(profile: dict[str, Any], machine: str) -> list[str]:
    for entry in profile.get("archMap") or []:
        if entry.get("architecture") == machine:
            return [machine, *(entry.get("subArchitectures") or [])]
    return []


def _applies(
    rule: dict[str, Any], go_name: str, kernel: tuple[int, int], capabilities: Collection[str]
) -> bool:
    excludes, includes = rule.get("excludes") or {}, rule.get("includes") or {}
    if go_name in (excludes.get("arches") or []):
        return False
    if any(name in capabilities for name in excludes.get("caps") or []):
        return False
    if (below := excludes.get("minKernel")) and kernel >= _kernel(below):
        return False
    if (arches := includes.get("arches")) and go_name not in arches:
        return False
    if not all(name in capabilities for name in includes.get("caps") or []):
        return False
    return not ((least := includes.get("minKernel")) and kernel < _kernel(least))


def _kernel(text: str) -> tuple[int, int]:
    try:
        major, minor = (int(part) for part in text.split(".")[:2])
    except ValueError as exc:
        raise System(f"Decoding seccomp profile failed: invalid kernel version: {text!r}") from exc
    return major, minor


def _concrete(rule: dict[str, Any]) -> dict[str, Any]:
    names = list(rule.get("names") or ())
    if rule.get("name"):  # the spelling before Docker 1.13
        if names:
            raise System("both 'name' and 'names' are specified in the seccomp profile, use one of them")
        names = [rule["name"]]
    concrete: dict[str, Any] = {"names": names, "action": rule.get("action", "")}
    if rule.get("errnoRet") is not None:
        concrete["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        concrete["args"] = [
            {key: arg[key] for key in ("index", "value", "valueTwo", "op") if key in arg}
            for arg in rule["args"]
        ]
    return concrete
