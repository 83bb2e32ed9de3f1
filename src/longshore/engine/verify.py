"""Whether a container's settings can be followed on this host, and what Docker makes of them."""

from __future__ import annotations

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.links import parse_link
from longshore.engine.networking import find_network
from longshore.engine.spec import BUILT_IN
from longshore.errors import Conflict, EngineError, InvalidParameter
from longshore.logs.driver import validate_log_opts
from longshore.oci.security_options import parse_security_options
from longshore.oci.validate import adapt_host_config, verify_host_config
from longshore.types.container import Config, HostConfig
from longshore.types.network import EndpointSettings


def verify_container_settings(
    engine: Engine, host_config: HostConfig, config: Config | None, *, update: bool
) -> list[str]:
    """Check everything that the host's facts decide; settings it cannot follow are taken out.

    Returns Docker's warnings. Raises InvalidParameter.
    """
    return verify_host_config(
        host_config,
        engine.host,
        config=config,
        runtimes={*BUILT_IN, *engine.config.runtimes},
        update=update,
    )


def adapt_container_settings(engine: Engine, host_config: HostConfig) -> None:
    """Fill in what the user left to the daemon."""
    config = engine.config
    host_config.Runtime = host_config.Runtime or config.default_runtime
    adapt_host_config(
        host_config,
        engine.host,
        default_shm_size=config.shm_size,
        default_ipc_mode=config.default_ipc_mode,
        default_cgroupns_mode=config.default_cgroupns_mode,
    )


def merge_log_config(engine: Engine, host_config: HostConfig) -> None:
    """The daemon's log driver and options where the container names none. Raises InvalidParameter."""
    log = host_config.LogConfig
    if not log.Type:
        log.Type = engine.config.log_driver
    if log.Type == engine.config.log_driver:
        log.Config = {**engine.config.log_opts, **(log.Config or {})}
    log.Config = log.Config or {}
    validate_log_opts(log.Type, log.Config)


def apply_security_options(container: Container) -> None:
    """Note what the security options say where `docker inspect` and dockerd look for it."""
    options = parse_security_options(container.host_config.SecurityOpt)
    container.record.NoNewPrivileges = bool(options.no_new_privileges)
    container.record.SeccompProfile = options.seccomp
    container.record.AppArmorProfile = options.apparmor


def verify_networking_config(
    engine: Engine,
    host_config: HostConfig,
    endpoints: dict[str, EndpointSettings],
    api_version: tuple[int, int],
) -> None:
    """Check the endpoints asked for at creation. Raises InvalidParameter, NotFound, Conflict."""
    if api_version < (1, 44) and len(endpoints) > 1:
        names = ", ".join(sorted(endpoints))
        raise InvalidParameter(f"container cannot be connected to network endpoints: {names}")
    mode = host_config.NetworkMode
    kind, _, other = mode.partition(":")
    if kind == "container":
        if not other:
            raise InvalidParameter("Invalid network mode: invalid container format container:<name|id>")
        engine.containers.get(other)
    for name, settings in endpoints.items():
        wanted = settings.IPAMConfig
        fixed = wanted is not None and (wanted.IPv4Address or wanted.IPv6Address)
        if not fixed:
            continue
        try:
            network = find_network(engine, name, settings.NetworkID)
        except EngineError:
            continue  # Docker too finds out about missing networks only at the start.
        if network.name in ("bridge", "host", "none"):
            raise InvalidParameter(
                f"invalid config for network {name}: invalid endpoint settings:\n"
                "user specified IP address is supported on user defined networks only"
            )


def verify_links(engine: Engine, host_config: HostConfig) -> None:
    """Check that linked containers exist. Raises InvalidParameter, NotFound, Conflict."""
    for text in host_config.Links or []:
        name, _ = parse_link(text)
        other = engine.containers.get(name)
        if other.host_config.NetworkMode == "host":
            raise Conflict("conflicting options: host type networking can't be used with links")
