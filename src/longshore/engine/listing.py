"""List containers, with Docker's filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.human import status_text
from longshore.engine.inspect import api_endpoints, container_size, mount_points
from longshore.engine.ports import parse_port
from longshore.errors import EngineError, InvalidParameter, NotFound
from longshore.types.container import ContainerSummary, Port, SummaryHostConfig, SummaryNetworkSettings

STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
HEALTH = ("none", "starting", "healthy", "unhealthy")
FILTERS = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
]

Filters = Mapping[str, Collection[str]]
Test = Callable[[Container], bool]


async def container_list(
    engine: Engine, all: bool = False, limit: int = -1, size: bool = False, filters: Filters | None = None
) -> list[ContainerSummary]:
    """GET /containers/json, newest first. Raises InvalidParameter for a filter that does not exist.

    Without `all`, a limit or a filter on state, only running containers are listed.
    """
    filters = filters or {}
    tests = _tests(engine, filters)
    if not (all or limit > 0 or any(filters.get(key) for key in ("status", "exited", "before", "since"))):
        tests.append(lambda container: container.state.Running)
    chosen: list[Container] = []
    for container in sorted(engine.containers, key=lambda one: one.record.Created, reverse=True):
        if 0 < limit <= len(chosen):
            break
        if not container.removed and _passes(container, tests):
            chosen.append(container)
    summaries = [_summary(engine, container) for container in chosen]
    if size:
        for container, summary in zip(chosen, summaries, strict=True):
            try:
                summary.SizeRw, summary.SizeRootFs = await container_size(engine, container)
            except (NotFound, OSError):
                continue  # Removed while it was counted.
    return summaries


def _passes(container: Container, tests: list[Test]) -> bool:
    return all(test(container) for test in tests)


def _summary(engine: Engine, container: Container) -> ContainerSummary:
    record = container.record
    return ContainerSummary(
        Id=record.ID,
        Names=[record.Name, *_linked_names(engine, container)],
        Image=_image_name(engine, container),
        ImageID=record.Image,
        Command=_command(container),
        Created=_seconds(record.Created),
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


def _linked_names(engine: Engine, container: Container) -> list[str]:
    names = []
    for other in engine.containers:
        for link in other.host_config.Links or []:
            target, _, alias = link.partition(":")
            if target.removeprefix("/") in (container.name, container.id):
                names.append(f"/{other.name}/{(alias or target).rpartition('/')[2]}")
    return names


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


def _seconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment.partition(".")[0].removesuffix("Z") + "+00:00").timestamp())


def _tests(engine: Engine, filters: Filters) -> list[Test]:
    for key in filters:
        if key not in FILTERS:
            raise InvalidParameter(f"invalid filter '{key}'")
    return [test for key, values in filters.items() if values for test in [_test(engine, key, list(values))]]


def _test(engine: Engine, key: str, values: list[str]) -> Test:
    match key:
        case "id":
            return lambda c: any(c.id.startswith(value) or re.search(value, c.id) for value in values)
        case "name":
            patterns = [_pattern(value) for value in values]
            return lambda c: any(p.search(c.name) or p.search(f"/{c.name}") for p in patterns)
        case "label":
            return lambda c: all(_has_label(c.config.Labels or {}, value) for value in values)
        case "status":
            _check("status", "state", values, STATUSES)
            return lambda c: c.status in values
        case "health":
            _check("health", "health", values, HEALTH)
            return lambda c: (c.state.Health.Status if c.state.Health else "none") in values
        case "exited":
            codes = {_number(value) for value in values}
            return lambda c: c.state.ExitCode in codes and c.status == "exited"
        case "ancestor":
            return _ancestor(engine, values)
        case "before" | "since":
            moments = [engine.containers.get(value).record.Created for value in values]
            if key == "before":
                return lambda c: all(c.record.Created < moment for moment in moments)
            return lambda c: all(c.record.Created > moment for moment in moments)
        case "network":
            return lambda c: _on_network(c, values)
        case "volume":
            return lambda c: all(
                any(value in (p.Name, p.Source, p.Destination) for p in c.mount_points.values())
                for value in values
            )
        case "publish":
            wanted = _port_set(values)
            return lambda c: any(
                (protocol, int(place.HostPort or 0)) in wanted
                for text, places in (c.networks.Ports or {}).items()
                for protocol in [text.rpartition("/")[2]]
                for place in places or []
            )
        case "expose":
            wanted = _port_set(values)
            return lambda c: any(
                parse_port(text)[:2] in wanted
                for text in {**(c.networks.Ports or {}), **(c.config.ExposedPorts or {})}
            )
        case "is-task":
            truths = {value.lower() in ("1", "true") for value in values}
            return lambda c: False in truths
    return lambda c: True  # isolation: Linux has but one


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error:
        return re.compile(re.escape(text))


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _check(key: str, what: str, values: list[str], allowed: tuple[str, ...]) -> None:
    for value in values:
        if value not in allowed:
            raise InvalidParameter(
                f"invalid filter '{key}={value}': invalid value for {what} ({value}): "
                f"must be one of {', '.join(allowed)}"
            )


def _number(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidParameter(
            f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"
        ) from None


def _ancestor(engine: Engine, values: list[str]) -> Test:
    wanted: set[str] = set()
    names: set[str] = set()
    for value in values:
        names.add(value)
        try:
            wanted |= _descendants(engine, engine.images.resolve(value).id)
        except EngineError:
            continue  # An image that is gone may still be the name a container was made from.
    return lambda c: c.record.Image in wanted or c.config.Image in names


def _descendants(engine: Engine, image_id: str) -> set[str]:
    """The image and those built on it."""
    found, pending = set(), [image_id]
    while pending:
        found.add(current := pending.pop())
        pending.extend(engine.images.images.children(current))
    return found


def _on_network(container: Container, values: list[str]) -> bool:
    for name, endpoint in (container.networks.Networks or {}).items():
        for value in values:
            if value == name or (len(value) >= 12 and endpoint.NetworkID.startswith(value)):
                return True
    return False


def _port_set(values: list[str]) -> set[tuple[str, int]]:
    ports = set()
    for value in values:
        protocol, first, last = parse_port(value)
        ports |= {(protocol, number) for number in range(first, last + 1)}
    return ports
