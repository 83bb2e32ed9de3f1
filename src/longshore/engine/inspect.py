"""Describe one container in full."""

from __future__ import annotations

import asyncio

import msgspec

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.exec import live_execs
from longshore.engine.links import full_links
from longshore.engine.version import API_VERSION
from longshore.errors import NotFound
from longshore.types.container import (
    ContainerInspectResponse,
    GraphDriverData,
    HostConfig,
    NetworkSettings,
    State,
)
from longshore.types.mount import MountPoint
from longshore.types.network import EndpointSettings


async def container_inspect(
    engine: Engine, name: str, size: bool = False, version: tuple[int, ...] = API_VERSION
) -> ContainerInspectResponse:
    """GET /containers/{id}/json. `size` counts the bytes of its file system. Raises NotFound."""
    container = engine.containers.get(name)
    record = container.record
    response = ContainerInspectResponse(
        Id=record.ID,
        Created=record.Created,
        Path=record.Path,
        Args=record.Args,
        State=state_of(container),
        Image=record.Image,
        ResolvConfPath=record.ResolvConfPath,
        HostnamePath=record.HostnamePath,
        HostsPath=record.HostsPath,
        LogPath=record.LogPath,
        Name=record.Name,
        RestartCount=record.RestartCount,
        Driver=record.Driver,
        Platform=record.OS,
        MountLabel=record.MountLabel,
        ProcessLabel=record.ProcessLabel,
        AppArmorProfile=record.AppArmorProfile,
        ExecIDs=[each.id for each in live_execs(engine, container)] or None,
        HostConfig=_host_config(engine, container),
        GraphDriver=GraphDriverData(*graph_driver_data(engine, container)),
        Mounts=mount_points(container),
        Config=container.config,
        NetworkSettings=_network_settings(container),
    )
    if version < (1, 45):
        _add_names_to_aliases(container, response)
    if size:
        response.SizeRw, response.SizeRootFs = await container_size(engine, container)
    return response


def _add_names_to_aliases(container: Container, response: ContainerInspectResponse) -> None:
    """What DNSNames says since, older clients look for among the aliases."""
    for network, endpoint in (response.NetworkSettings.Networks or {}).items():
        if network not in ("bridge", "host", "none", "default"):
            own = [*(endpoint.Aliases or []), container.id[:12], container.config.Hostname]
            endpoint.Aliases = list(dict.fromkeys(name for name in own if name))


def state_of(container: Container) -> State:
    """The container's state as the API shows it."""
    state = container.state
    return State(
        Status=container.status,
        Running=state.Running,
        Paused=state.Paused,
        Restarting=state.Restarting,
        OOMKilled=state.OOMKilled,
        Dead=state.Dead,
        Pid=state.Pid,
        ExitCode=state.ExitCode,
        Error=state.Error,
        StartedAt=state.StartedAt,
        FinishedAt=state.FinishedAt,
        Health=state.Health,
    )


def _host_config(engine: Engine, container: Container) -> HostConfig:
    if not container.host_config.Links:
        return container.host_config
    return msgspec.structs.replace(container.host_config, Links=full_links(engine, container))


def graph_driver_data(engine: Engine, container: Container) -> tuple[dict[str, str] | None, str]:
    """The graph driver's data of the container's layer, and the driver's name."""
    try:
        data = engine.layers.get_rw_layer(container.id).metadata()
    except NotFound:
        data = None
    if data is not None:
        data = {"ID": container.id, **data}
    return data, engine.layers.driver_name


async def container_size(engine: Engine, container: Container) -> tuple[int, int]:
    """Bytes of the container's own layer, and of everything it sees."""
    rw_layer = engine.layers.get_rw_layer(container.id)
    own = await asyncio.to_thread(rw_layer.size)
    below = engine.layers.find(rw_layer.parent) if rw_layer.parent else None
    return own, own + (below.total_size if below is not None else 0)


def mount_points(container: Container) -> list[MountPoint]:
    """The container's mounts in the order of their destinations."""
    return [
        MountPoint(
            Type=point.Type,
            Name=point.Name,
            Source=point.Source,
            Destination=point.Destination,
            Driver=point.Driver,
            Mode=point.Mode,
            RW=point.RW,
            Propagation=point.Propagation,
        )
        for _, point in sorted(container.mount_points.items())
    ]


def _network_settings(container: Container) -> NetworkSettings:
    kept = container.networks
    settings = NetworkSettings(
        Bridge=kept.Bridge,
        SandboxID=kept.SandboxID,
        SandboxKey=kept.SandboxKey,
        Ports=kept.Ports if kept.Ports is not None else {},
        Networks=api_endpoints(container),
    )
    default = (kept.Networks or {}).get("bridge")
    if default is not None:
        settings.EndpointID = default.EndpointID
        settings.Gateway = default.Gateway
        settings.IPAddress = default.IPAddress
        settings.IPPrefixLen = default.IPPrefixLen
        settings.IPv6Gateway = default.IPv6Gateway
        settings.GlobalIPv6Address = default.GlobalIPv6Address
        settings.GlobalIPv6PrefixLen = default.GlobalIPv6PrefixLen
        settings.MacAddress = default.MacAddress
    return settings


def api_endpoints(container: Container) -> dict[str, EndpointSettings]:
    """The container's endpoints without the record's private notes."""
    fields = EndpointSettings.__struct_fields__
    return {
        name: EndpointSettings(**{field: getattr(endpoint, field) for field in fields})
        for name, endpoint in (container.networks.Networks or {}).items()
    }
