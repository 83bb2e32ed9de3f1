"""List containers, as `docker ps` shows them."""

from __future__ import annotations

from collections.abc import Mapping

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.human import status_text
from longshore.engine.inspect import api_endpoints, container_size, mount_points
from longshore.engine.ports import parse_port
from longshore.engine.selection import select
from longshore.errors import EngineError, NotFound
from longshore.types.container import ContainerSummary, Port, SummaryHostConfig, SummaryNetworkSettings
from longshore.types.filters import Filters
from longshore.types.timestamp import SECOND


async def container_list(
    engine: Engine, all: bool = False, limit: int = -1, size: bool = False, filters: Filters | None = None
) -> list[ContainerSummary]:
    """GET /containers/json, newest first. Raises InvalidParameter and NotFound as `select` does.

    Without `all`, a limit or a filter on state, only running containers are listed.
    """
    links = linked_names(engine)
    chosen = select(engine, filters or {}, all=all, limit=limit)
    images: dict[tuple[str, str], str] = {}
    summaries = [_summary(engine, container, links.get(container.id, []), images) for container in chosen]
    if size:
        for container, summary in zip(chosen, summaries, strict=True):
            try:
                summary.SizeRw, summary.SizeRootFs = await container_size(engine, container)
            except (NotFound, OSError):
                continue  # Removed while it was counted.
    return summaries


def linked_names(engine: Engine) -> Mapping[str, list[str]]:
    """The names that containers have inside those that link to them, by id."""
    names: dict[str, list[str]] = {}
    for other in engine.containers:
        for link in other.host_config.Links or []:
            target, _, alias = link.partition(":")
            try:
                linked = engine.containers.get(target)
            except EngineError:
                continue  # It is gone.
            names.setdefault(linked.id, []).append(f"/{other.name}/{(alias or target).rpartition('/')[2]}")
    return names


def _summary(
    engine: Engine, container: Container, links: list[str], images: dict[tuple[str, str], str]
) -> ContainerSummary:
    """`images` remembers what names mean: most containers of a crowd are of the same few."""
    record = container.record
    image = record.Config.Image, record.Image
    if image not in images:
        images[image] = _image_name(engine, container)
    return ContainerSummary(
        Id=record.ID,
        Names=[record.Name, *links],
        Image=images[image],
        ImageID=record.Image,
        Command=_command(container),
        Created=container.created // SECOND,
        Ports=_ports(container),
        Labels=container.config.Labels or {},
        State=container.status,
        Status=status_text(container),
        HostConfig=SummaryHostConfig(
            container.host_config.NetworkMode or "default", container.host_config.Annotations
        ),
        NetworkSettings=SummaryNetworkSettings(dict(api_endpoints(container))),
        Mounts=mount_points(container),
    )


def _image_name(engine: Engine, container: Container) -> str:
    """The name the container was made from while it still means the same image, else the image's id."""
    name = container.config.Image
    try:
        return name if engine.images.resolve(name).id == container.record.Image else container.record.Image
    except EngineError:
        return container.record.Image or name


def _command(container: Container) -> str:
    """Docker quotes arguments that hold blanks."""
    args = [f"'{arg}'" if " " in arg else arg for arg in container.record.Args]
    return " ".join([container.record.Path, *args])


def _ports(container: Container) -> list[Port]:
    ports = []
    for text, places in (container.networks.Ports or {}).items():
        protocol, number, _ = parse_port(text)
        if not places:
            ports.append(Port(PrivatePort=number, Type=protocol))
        ports.extend(Port(place.HostIp, number, int(place.HostPort or 0), protocol) for place in places or [])
    return ports
