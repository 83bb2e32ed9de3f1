"""Published ports: from what HostConfig asks for to what the network publishes, and back for inspect."""

from __future__ import annotations

import re
from collections.abc import Iterable

from longshore.containers.container import Container
from longshore.errors import InvalidParameter
from longshore.network.endpoint import PortBinding, PublishedPort
from longshore.network.ipam import parse_address
from longshore.types.container import PortMap
from longshore.types.network import PortBinding as ApiPortBinding

PROTOCOLS = ("tcp", "udp", "sctp")
_NUMBERS = re.compile(r"[0-9]{1,9}(-[0-9]{0,9})?")


def parse_port(text: str) -> tuple[str, int, int]:
    """`80`, `80/udp` or `80-90/tcp` to (protocol, first, last). Raises InvalidParameter."""
    ports, _, protocol = text.partition("/")
    first, _, last = ports.partition("-")
    protocol = protocol.lower() or "tcp"
    if not _NUMBERS.fullmatch(ports) or protocol not in PROTOCOLS:
        raise InvalidParameter(f"invalid port specification: {text!r}")
    start, end = int(first), int(last or first)
    if not 0 < start <= end <= 65535:
        raise InvalidParameter(f"invalid port specification: {text!r}")
    return protocol, start, end


def port_bindings(container: Container) -> list[PortBinding]:
    """Every port to publish, each container port by itself. Raises InvalidParameter."""
    bindings: list[PortBinding] = []
    published = container.host_config.PortBindings or {}
    for port, places in sorted(published.items()):
        protocol, first, last = parse_port(port)
        for number in range(first, last + 1):
            for place in places or [ApiPortBinding()]:
                start, end = _host_ports(place.HostPort, number - first, last - first)
                bindings.append(PortBinding(protocol, number, _host_address(place.HostIp), start, end))
    if container.host_config.PublishAllPorts:
        for port in sorted(container.config.ExposedPorts or {}):
            protocol, first, last = parse_port(port)
            for number in range(first, last + 1):
                if f"{number}/{protocol}" not in published:
                    bindings.append(PortBinding(protocol, number, "", 0, 0))
    return bindings


def exposed_ports(container: Container) -> list[tuple[str, int]]:
    """Protocols and numbers of the ports that the container exposes. Raises InvalidParameter."""
    found = []
    for text in container.config.ExposedPorts or {}:
        protocol, first, last = parse_port(text)
        found += [(protocol, number) for number in range(first, last + 1)]
    return found


def _host_address(text: str) -> str:
    """In its one spelling. Where Docker takes what it cannot read for all addresses, it is refused here."""
    return str(parse_address(text)) if text else ""


def _host_ports(text: str, offset: int, span: int) -> tuple[int, int]:
    """The host ports to choose from; a range of the same length as the container's goes port by port."""
    if not text:
        return 0, 0
    first, _, last = text.partition("-")
    if not _NUMBERS.fullmatch(text):
        raise InvalidParameter(f"invalid host port specification: {text!r}")
    start, end = int(first), int(last or first)
    if end < start or end > 65535:
        raise InvalidParameter(f"invalid host port specification: {text!r}")
    if span and end - start == span:
        return start + offset, start + offset
    return start, end


def port_map(container: Container, published: Iterable[PublishedPort]) -> PortMap:
    """Exposed ports as null and published ones with their places, as inspect shows them."""
    ports: PortMap = {}
    for text in sorted(container.config.ExposedPorts or {}):
        protocol, first, last = parse_port(text)
        for number in range(first, last + 1):
            ports[f"{number}/{protocol}"] = None
    for binding in published:
        places = ports.setdefault(f"{binding.container_port}/{binding.protocol}", None)
        if places is None:
            places = ports[f"{binding.container_port}/{binding.protocol}"] = []
        places.append(ApiPortBinding(binding.host_ip, str(binding.host_port or "")))
    return ports
