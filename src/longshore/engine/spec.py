"""From a container to the bytes of its OCI specification: looks up what the specification refers to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from longshore.config import RuntimeConfig
from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.links import link_environment
from longshore.errors import Conflict, EngineError, InvalidParameter, System
from longshore.oci.apparmor import DEFAULT_PROFILE, ensure_default_profile
from longshore.oci.input import IDMap, ResolvedMount, SpecInput
from longshore.oci.spec import create_spec, encode_spec
from longshore.runtime.task import RuntimeOptions
from longshore.types.resources import Ulimit

DEFAULT_SHIM = "io.containerd.runc.v2"
BUILT_IN = ("runc", "io.containerd.runc.v2", "crun")
"""Runtimes that need not be registered; the second is the name dockerd has for the first."""


async def build_spec(
    engine: Engine, container: Container, rootfs: Path, mounts: list[ResolvedMount], network: str | None
) -> bytes:
    """The container's config.json. `network` is its network namespace's path, "host", or None for a new one.

    Raises System for what cannot be done: the request to start is as good as ever.
    """
    try:
        described = spec_input(engine, container, rootfs, mounts, network)
        if container.host_config.ReadonlyRootfs or not all(mount.rw for mount in mounts):
            program = runtime_options(engine, container).path
            known = await asyncio.to_thread(runtime_mount_options, program)
            described = replace(described, runtime_recursive_read_only="rro" in known)
    except EngineError as exc:
        raise System(exc.message) from exc
    # In a thread: it reads passwd and group of the container, which may lie on a slow disk.
    encoded, profile = await asyncio.to_thread(_encoded, engine, described)
    container.record.AppArmorProfile = profile
    return encoded


def _encoded(engine: Engine, described: SpecInput) -> tuple[bytes, str]:
    """The specification, and the AppArmor profile in it, which is seen to be there."""
    spec, config = create_spec(described, engine.host), engine.config
    if (profile := spec["process"].get("apparmorProfile", "")) == DEFAULT_PROFILE:
        ensure_default_profile()
    if config.cpu_rt_period or config.cpu_rt_runtime:
        from longshore.linux.cgroups import allow_real_time

        path = spec["linux"]["cgroupsPath"]
        allow_real_time(path, engine.host, config.cpu_rt_period, config.cpu_rt_runtime)
    return encode_spec(spec), profile


def spec_input(
    engine: Engine, container: Container, rootfs: Path, mounts: list[ResolvedMount], network: str | None
) -> SpecInput:
    """The container as `longshore.oci` wants it described."""
    host_config, record, config = container.host_config, container.record, engine.config
    return SpecInput(
        id=container.id,
        config=container.config,
        host_config=host_config,
        rootfs=rootfs,
        hostname=container.config.Hostname,
        mounts=tuple(mounts),
        hostname_path=record.HostnamePath,
        hosts_path=record.HostsPath,
        resolv_conf_path=record.ResolvConfPath,
        shm_path=_shm_path(engine, container),
        network_namespace=network,
        pid_namespace=_namespace(engine, container, host_config.PidMode, "pid"),
        ipc_namespace=_namespace(engine, container, host_config.IpcMode, "ipc"),
        uts_namespace="host" if host_config.UTSMode == "host" else None,
        user_namespace=_user_namespace(engine, container),
        uid_mappings=tuple(IDMap(*line) for line in engine.remapping.uids),
        gid_mappings=tuple(IDMap(*line) for line in engine.remapping.gids),
        path=record.Path,
        args=tuple(record.Args),
        default_cgroup_parent=config.cgroup_parent,
        cgroup_driver=engine.host.cgroup_driver,
        daemon_seccomp_profile=engine.seccomp_profile,
        no_new_privileges=config.no_new_privileges,
        process_label=record.ProcessLabel,
        mount_label=record.MountLabel,
        init=config.init,
        init_path=config.init_path,
        link_env=link_environment(engine, container),
        secret_env=tuple(f"{name}={value}" for name, value in container.secret_environment.items()),
        cdi_spec_dirs=tuple(config.cdi_directories),
        default_ulimits=tuple(
            Ulimit(one.Name or name, one.Hard, one.Soft) for name, one in config.default_ulimits.items()
        ),
    )


def runtime_options(engine: Engine, container: Container) -> RuntimeOptions:
    """The OCI runtime the container asks for. Raises InvalidParameter if there is none of that name."""
    name = container.host_config.Runtime or engine.config.default_runtime
    known = engine.config.runtimes.get(name)
    if known is None and name not in BUILT_IN:
        raise InvalidParameter(f"unknown or invalid runtime name: {name}")
    known = known or RuntimeConfig(path="crun" if name == "crun" else "runc")
    return RuntimeOptions(
        name=name,
        path=known.path or "runc",
        type=known.type or DEFAULT_SHIM,
        systemd_cgroup=engine.host.cgroup_driver == "systemd",
    )


@cache
def runtime_mount_options(program: str) -> frozenset[str]:
    """The mount options that an OCI runtime says it knows; none if it says nothing. Asked once. Blocks.

    https://github.com/opencontainers/runtime-spec/blob/main/features.md
    """
    import subprocess

    try:
        done = subprocess.run([program, "features"], capture_output=True, timeout=5, check=True)
        return frozenset(msgspec.json.decode(done.stdout, type=dict[str, Any])["mountOptions"])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError, KeyError, TypeError):
        return frozenset()


def _namespace(engine: Engine, container: Container, mode: str, kind: str) -> str | None:
    """Where a namespace comes from: a path, "host", or None for one of the container's own."""
    if mode == "host":
        return "host"
    how, _, name = mode.partition(":")
    if how != "container":
        return None
    other = engine.containers.get(name)
    if not other.state.Running:
        raise Conflict(f"container {name} is not running")
    if other.state.Restarting:
        raise Conflict(f"container {name} is restarting, wait until the container is running")
    if kind == "ipc" and not other.record.ShmPath:
        raise InvalidParameter(
            f"container {name}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        )
    return f"/proc/{other.state.Pid}/ns/{kind}"


def _user_namespace(engine: Engine, container: Container) -> str | None:
    """Where the user namespace comes from: one that is shared can only be entered through its owner."""
    if not engine.is_remapped(container.host_config):
        return "host"
    host_config = container.host_config
    for mode in (host_config.NetworkMode, host_config.IpcMode, host_config.PidMode):
        if mode.startswith("container:"):
            return _namespace(engine, container, mode, "user")
    return None


def _shm_path(engine: Engine, container: Container) -> str | None:
    mode = container.host_config.IpcMode
    how, _, name = mode.partition(":")
    if how == "container":
        return engine.containers.get(name).record.ShmPath or None
    if mode == "host":
        return "/dev/shm"
    if mode == "shareable":
        return container.record.ShmPath or None
    return None
