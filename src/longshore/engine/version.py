"""Which Longshore this is, and which API it speaks."""

from __future__ import annotations

import asyncio
import os
import platform
import re
from functools import cache
from typing import TYPE_CHECKING

from longshore import __version__
from longshore.types.system import SystemVersion, VersionComponent, VersionPlatform

if TYPE_CHECKING:
    from longshore.engine.engine import Engine

API_VERSION = (1, 50)
"""The newest API version spoken."""
MIN_API_VERSION = (1, 24)
"""The oldest."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


async def system_version(engine: Engine) -> SystemVersion:
    """GET /version"""
    containerd, runc, init = await asyncio.gather(
        asyncio.to_thread(program_version, "containerd"),
        asyncio.to_thread(program_version, _runtime_program(engine)),
        asyncio.to_thread(program_version, engine.config.init_path or engine.host.init_path or "docker-init"),
    )
    api, oldest = (".".join(map(str, version)) for version in (API_VERSION, MIN_API_VERSION))
    details = {
        "ApiVersion": api,
        "Arch": architecture(),
        "Experimental": "true" if engine.config.experimental else "false",
        "KernelVersion": os.uname().release,
        "MinAPIVersion": oldest,
        "Os": "linux",
        "PythonVersion": platform.python_version(),
    }
    components = [VersionComponent(Name="Engine", Version=__version__, Details=details)]
    for name, version in (
        ("containerd", containerd),
        (engine.config.default_runtime, runc),
        ("docker-init", init),
    ):
        if version is not None:
            components.append(
                VersionComponent(Name=name, Version=version[0], Details={"GitCommit": version[1]})
            )
    return SystemVersion(
        Platform=VersionPlatform(Name="Longshore"),
        Components=components,
        Version=__version__,
        ApiVersion=api,
        MinAPIVersion=oldest,
        GitCommit="",
        GoVersion="",
        Os="linux",
        Arch=architecture(),
        KernelVersion=os.uname().release,
        Experimental=engine.config.experimental,
        BuildTime="",
    )


def _runtime_program(engine: Engine) -> str:
    runtime = engine.config.runtime(engine.config.default_runtime)
    return (runtime.path if runtime else "") or "runc"


def architecture() -> str:
    """The machine's architecture as Go and OCI images name it."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


@cache
def program_version(program: str) -> tuple[str, str] | None:
    """Version and commit that `program --version` tells; None if it cannot be run. Asked once. Blocks."""
    import subprocess

    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"\b(\d+\.\d+[^\s,]*)", done.stdout)
    if version is None:
        return None
    # runc writes `commit: …`, containerd the commit behind its version.
    commit = re.search(r"commit: (\S+)", done.stdout) or re.match(
        r"[ \t]+(\S+)", done.stdout[version.end() :]
    )
    return version[1], commit[1] if commit else ""
