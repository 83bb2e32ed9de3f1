"""Whether a container's settings can be followed on this host, and what Docker makes of them."""

from __future__ import annotations

from contextlib import suppress

from longshore.containers.container import Container
from longshore.engine.endpoint_settings import verify_endpoint
from longshore.engine.engine import Engine
from longshore.engine.networking import find_network
from longshore.engine.spec import BUILT_IN
from longshore.errors import EngineError, InvalidParameter, NotFound
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
        remapped=bool(engine.remapping.uids),
    )


def adapt_container_settings(engine: Engine, host_config: HostConfig) -> None:
    """Fill in what the user left to the daemon. Raises InvalidParameter, Conflict."""
    config = engine.config
    _adapt_shared_namespaces(engine, host_config)
    host_config.Runtime = host_config.Runtime or config.default_runtime
    adapt_host_config(
        host_config,
        engine.host,
        default_shm_size=config.shm_size,
        default_ipc_mode=config.default_ipc_mode,
        default_cgroupns_mode=config.default_cgroupns_mode,
    )


def _adapt_shared_namespaces(engine: Engine, host_config: HostConfig) -> None:
    """Keep whose namespaces are joined by id: the other container may be given another name."""
    for field in ("NetworkMode", "PidMode", "IpcMode"):
        kind, _, name = getattr(host_config, field).partition(":")
        if kind != "container":
            continue
        try:
            setattr(host_config, field, f"container:{engine.containers.get(name).id}")
        except NotFound as exc:
            # The network's container is missed only at the start. NotFound would mean the image here.
            if field != "NetworkMode":
                raise InvalidParameter(exc.message) from exc


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
) -> None:
    """Check the endpoints asked for at creation. Raises InvalidParameter."""
    mode = host_config.NetworkMode
    kind, _, other = mode.partition(":")
    if kind == "container" and not other:
        raise InvalidParameter("Invalid network mode: invalid container format container:<name|id>")
    for name, settings in endpoints.items():
        network = None
        with suppress(EngineError):  # Docker too finds out about missing networks only at the start.
            network = find_network(engine, name, settings.NetworkID)
        verify_endpoint(name, settings, network)
