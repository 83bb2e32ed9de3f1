"""Links of the default bridge: names for other containers, from before networks had names."""

from __future__ import annotations

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.errors import InvalidParameter


def parse_link(text: str) -> tuple[str, str]:
    """`name` or `name:alias` to (name, alias). Raises InvalidParameter."""
    parts = text.split(":")
    if not text or len(parts) > 2 or not parts[0]:
        raise InvalidParameter(f"invalid format for links: {text}")
    name = parts[0].removeprefix("/")
    alias = parts[-1].rpartition("/")[2]
    return name, alias


def links_of(engine: Engine, container: Container) -> list[tuple[str, str, str]]:
    """(name, alias, address) of every linked container that runs on the default bridge."""
    links = []
    for text in container.host_config.Links or []:
        name, alias = parse_link(text)
        other = engine.containers.get(name)
        endpoint = (other.networks.Networks or {}).get("bridge")
        if other.state.Running and endpoint is not None and endpoint.IPAddress:
            links.append((name, alias, endpoint.IPAddress))
    return links
