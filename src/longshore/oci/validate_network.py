"""Checks of settings that depend on whose network the container is on."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from longshore.errors import InvalidParameter
from longshore.types.container import Config, HostConfig


def verify_network_mode(config: Config, host_config: HostConfig) -> None:
    """Settings that another's network makes meaningless. Raises InvalidParameter with moby's messages."""
    mode = host_config.NetworkMode
    if host_config.UTSMode == "host" and config.Hostname:
        raise _conflict("hostname and the UTS mode")
    if mode == "host" and host_config.Links:
        raise _conflict(
            "host type networking can't be used with links. This would result in undefined behavior"
        )
    kind, colon, container = mode.partition(":")
    if kind != "container" or (not colon and mode != "container"):
        return
    if not container:
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    if config.Hostname:
        raise _conflict("hostname and the network mode")
    if host_config.Links:
        raise _conflict(
            "container type network can't be used with links. This would result in undefined behavior"
        )
    if host_config.Dns:
        raise _conflict("dns and the network mode")
    if host_config.ExtraHosts:
        raise _conflict("custom host-to-IP mapping and the network mode")
    if config.MacAddress:
        raise _conflict("mac-address and the network mode")
    if host_config.PortBindings or host_config.PublishAllPorts:
        raise _conflict("port publishing and the container type network mode")
    if config.ExposedPorts:
        raise _conflict("port exposing and the container type network mode")


def verify_extra_hosts(entries: Iterable[str] | None) -> None:
    """`name:address` or `name=address`; `host-gateway` stands for an address."""
    for entry in entries or ():
        name, separator, address = entry.partition("=" if "=" in entry else ":")
        if not separator or not name:
            raise InvalidParameter(f'bad format for add-host: "{entry}"')
        if address == "host-gateway":
            continue
        try:
            ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise InvalidParameter(f'invalid IP address in add-host: "{address}"') from None


def verify_dns(addresses: Iterable[str] | None) -> None:
    """Servers are addresses, not names."""
    for address in addresses or ():
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidParameter(f"invalid nameserver address: {address}") from None


def _conflict(text: str) -> InvalidParameter:
    return InvalidParameter(f"conflicting options: {text}")
