"""Links of the default bridge: names and variables for other containers, from before networks had names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.ports import parse_port
from longshore.errors import Conflict, InvalidParameter, NotFound, System
from longshore.network.ruleset import Link

_OF_THE_IMAGE = ("HOME", "PATH")
"""Variables that every container has and that say nothing about the one that is linked."""


def parse_link(text: str) -> tuple[str, str]:
    """`name` or `name:alias` to (name, alias). Raises InvalidParameter."""
    parts = text.split(":")
    if not text or len(parts) > 2 or not parts[0]:
        raise InvalidParameter(f"invalid format for links: {text}")
    name = parts[0].removeprefix("/")
    alias = parts[-1].rpartition("/")[2]
    return name, alias


def linked_container(engine: Engine, name: str) -> Container:
    """The container that a link names. Raises InvalidParameter if there is none, Conflict if ambiguous.

    Not NotFound, which would tell a client that makes a container that its image is missing.
    """
    try:
        return engine.containers.get(name)
    except NotFound as exc:
        raise InvalidParameter(f"could not get container for {name}: {exc.message}") from exc


def verify_links(engine: Engine, links: Iterable[str]) -> None:
    """Check that containers to link exist and have a network of their own.

    Raises InvalidParameter, NotFound, Conflict.
    """
    for text in links:
        name, _ = parse_link(text)
        other = linked_container(engine, name)
        while other.host_config.NetworkMode.startswith("container:"):
            other = engine.containers.get(other.host_config.NetworkMode.partition(":")[2])
        if other.host_config.NetworkMode == "host":
            raise InvalidParameter(
                "conflicting options: host type networking can't be used with links. "
                "This would result in undefined behavior"
            )


def full_links(engine: Engine, container: Container) -> list[str]:
    """The links as inspect shows them: `/name:/parent/alias`, those whose container is gone left out."""
    return [f"/{child.name}:/{container.name}/{alias}" for child, alias in _children(engine, container)]


def links_of(engine: Engine, container: Container) -> list[tuple[str, str, str]]:
    """(name, alias, address) for the hosts file, which also gives the host name a linked container has.

    Raises System for a linked container that does not run or is not on the default bridge.
    """
    return [
        (*_names(child, alias), _address(container, child, alias))
        for child, alias in _children(engine, container)
    ]


async def tell_linking_containers(engine: Engine, container: Container) -> None:
    """Give the running containers that link to this one its new address."""
    endpoint = (container.networks.Networks or {}).get("bridge")
    if endpoint is None or not endpoint.IPAddress:
        return
    for parent in engine.containers:
        aliases = [alias for child, alias in _children(engine, parent) if child is container]
        sandbox = engine.networks.sandbox(parent.id) if aliases else None
        if sandbox is None:
            continue
        names = {_names(container, alias) for alias in aliases}
        await sandbox.relink(
            [
                (name, alias, endpoint.IPAddress if (name, alias) in names else address)
                for name, alias, address in sandbox.options.links
            ]
        )


async def link_firewall(engine: Engine, container: Container) -> None:
    """Let the ports through that linked containers expose, where the default bridge keeps them apart."""
    own = (container.networks.Networks or {}).get("bridge")
    firewall = engine.networks.machine.firewall
    if own is None or not own.IPAddress or firewall is None or engine.config.icc:
        return
    links: list[Link] = []
    for parent in engine.containers:
        for child, _ in _children(engine, parent) if parent.host_config.Links else ():
            there = (child.networks.Networks or {}).get("bridge")
            here = (parent.networks.Networks or {}).get("bridge")
            if container in (parent, child) and here and there and here.IPAddress and there.IPAddress:
                links += [Link(here.IPAddress, there.IPAddress, *port) for port in _ports(child)]
    if links:
        await asyncio.to_thread(firewall.link, links)


def link_environment(engine: Engine, container: Container) -> tuple[str, ...]:
    """The variables that describe the linked containers (moby's daemon/links). Raises System."""
    variables: list[str] = []
    if "bridge" in (container.networks.Networks or {}):
        for child, alias in _children(engine, container):
            variables += _variables(container, child, alias)
    return tuple(variables)


def _children(engine: Engine, container: Container) -> Iterator[tuple[Container, str]]:
    for text in container.host_config.Links or []:
        name, alias = parse_link(text)
        try:
            yield engine.containers.get(name), alias
        except (NotFound, Conflict):
            continue  # Removed since: with it went the link.


def _names(child: Container, alias: str) -> tuple[str, str]:
    """The linked container's name and what it is called besides, equal if that is all the same."""
    names = " ".join(dict.fromkeys((alias, child.config.Hostname)))
    return (names if alias == child.name else child.name, names)


def _address(container: Container, child: Container, alias: str) -> str:
    if not child.state.Running:
        raise System(f"Cannot link to a non running container: /{child.name} AS /{container.name}/{alias}")
    endpoint = (child.networks.Networks or {}).get("bridge")
    if endpoint is None:
        raise System(f"container {child.id} not attached to default bridge network")
    return endpoint.IPAddress


def _variables(container: Container, child: Container, link_alias: str) -> Iterator[str]:
    alias = link_alias.upper().replace("-", "_")
    address = _address(container, child, link_alias)
    ports = _ports(child)
    if ports:
        protocol, number = ports[0]
        yield f"{alias}_PORT={protocol}://{address}:{number}"
    for protocol, number in ports:
        prefix = f"{alias}_PORT_{number}_{protocol.upper()}"
        yield f"{prefix}={protocol}://{address}:{number}"
        yield f"{prefix}_ADDR={address}"
        yield f"{prefix}_PORT={number}"
        yield f"{prefix}_PROTO={protocol}"
    for protocol, first, last in _runs(ports):
        prefix = f"{alias}_PORT_{first}_{protocol.upper()}"
        yield f"{prefix}_START={protocol}://{address}:{first}"
        yield f"{prefix}_PORT_START={first}"
        yield f"{prefix}_END={protocol}://{address}:{last}"
        yield f"{prefix}_PORT_END={last}"
    yield f"{alias}_NAME=/{container.name}/{link_alias}"
    for variable in child.config.Env or []:
        name, equals, value = variable.partition("=")
        if equals and name not in _OF_THE_IMAGE:
            yield f"{alias}_ENV_{name}={value}"


def _ports(child: Container) -> list[tuple[str, int]]:
    """(protocol, port) of what the container exposes: TCP first, then by number."""
    ports = []
    for text in child.config.ExposedPorts or {}:
        protocol, first, last = parse_port(text)
        ports += [(protocol, number) for number in range(first, last + 1)]
    return sorted(ports, key=lambda port: (port[0] != "tcp", *port))


def _runs(ports: list[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    """(protocol, first, last) wherever several ports follow each other."""
    runs: list[tuple[str, int, int]] = []
    for protocol, number in ports:
        if runs and (runs[-1][0], runs[-1][2] + 1) == (protocol, number):
            runs[-1] = (protocol, runs[-1][1], number)
        else:
            runs.append((protocol, number, number))
    return (run for run in runs if run[1] != run[2])
