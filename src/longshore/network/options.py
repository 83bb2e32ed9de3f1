"""The options of networks, by the names that Docker documents."""

from __future__ import annotations

import re
from collections.abc import Mapping

from longshore.errors import InvalidParameter, System
from longshore.network.ipam import parse_address

ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
BRIDGE_NAME = "com.docker.network.bridge.name"
DEFAULT_BRIDGE = "com.docker.network.bridge.default_bridge"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
INHIBIT_IPV4 = "com.docker.network.bridge.inhibit_ipv4"
TRUSTED_INTERFACES = "com.docker.network.bridge.trusted_host_interfaces"
GATEWAY_MODES = {
    4: "com.docker.network.bridge.gateway_mode_ipv4",
    6: "com.docker.network.bridge.gateway_mode_ipv6",
}
SOURCES = {4: "com.docker.network.host_ipv4", 6: "com.docker.network.host_ipv6"}
"""Addresses that outgoing packets get in place of the machine's own."""
ENABLE = {4: "com.docker.network.enable_ipv4", 6: "com.docker.network.enable_ipv6"}
MTU = "com.docker.network.driver.mtu"
INTERFACE_PREFIX = "com.docker.network.container_iface_prefix"
DEFAULT_GATEWAY = {4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"}
"""Auxiliary addresses of a bridge: its endpoints use them as gateways in place of the bridge itself."""
SYSCTLS = "com.docker.network.endpoint.sysctls"
"""Of an endpoint: comma-separated `net.X.Y.IFNAME.Z=value`."""
INTERFACE_NAME = "com.docker.network.endpoint.ifname"
"""Of an endpoint: what its interface is called inside the container."""

_MODES = ("nat", "nat-unprotected", "routed", "isolated")
_WORD = re.compile(r"[a-zA-Z0-9_-]+")
_LINK_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,15}")


def check_bridge_options(options: Mapping[str, str], *, internal: bool) -> None:
    """Raises InvalidParameter, System with Docker's messages for what the bridge driver cannot take."""
    for name in (ICC, MASQUERADE, INHIBIT_IPV4, *ENABLE.values()):
        if name in options:
            _parse_flag(options, name)
    if MTU in options:
        mtu(options)
    for name in (HOST_BINDING, *SOURCES.values()):
        if name in options:
            _check_address(name, options[name])
    for name in GATEWAY_MODES.values():
        mode = options.get(name)
        if mode is not None and mode not in _MODES:
            raise InvalidParameter(f"failed to parse {name} value: {mode} (unknown gateway mode {mode})")
        if mode == "isolated" and not internal:
            raise System("gateway mode 'isolated' can only be used for an internal network")
    for link in trusted_interfaces(options):
        check_link_name(link)
    check_link_name(f"{options.get(INTERFACE_PREFIX, 'eth')}0")


def flag(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    """A boolean option, in any spelling that Go's strconv.ParseBool takes. Raises InvalidParameter."""
    return _parse_flag(options, name) if options.get(name) else default


def mtu(options: Mapping[str, str]) -> int:
    """The MTU of a network; 0 is the kernel's default. Raises InvalidParameter."""
    text = options.get(MTU, "0")
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise InvalidParameter(
            f'failed to parse {MTU} value: {text} (strconv.Atoi: parsing "{text}": invalid syntax)'
        )
    if int(text) < 0:
        raise InvalidParameter(f"invalid MTU number: {int(text)}")
    return int(text)


def gateway_mode(options: Mapping[str, str], version: int) -> str:
    """How the network is connected to others, by IP version: `nat` unless it says otherwise."""
    return options.get(GATEWAY_MODES[version]) or "nat"


def trusted_interfaces(options: Mapping[str, str]) -> tuple[str, ...]:
    """Links of the machine from which containers' published ports are reached by containers' addresses."""
    return tuple(name for name in options.get(TRUSTED_INTERFACES, "").split(":") if name)


def check_link_name(name: str) -> None:
    """Raises InvalidParameter for what cannot be the name of a link, or could be more than that to nft(8)."""
    if not _LINK_NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidParameter(f"invalid interface name: {name}")


def endpoint_sysctls(options: Mapping[str, str], interface: str) -> dict[str, str]:
    """The sysctls of an endpoint with IFNAME replaced, by path below /proc/sys. Raises InvalidParameter."""
    found: dict[str, str] = {}
    for setting in filter(None, options.get(SYSCTLS, "").split(",")):
        name, equals, value = setting.partition("=")
        parts = name.strip().replace("/", ".").split(".")
        if not equals:
            raise InvalidParameter(
                f"invalid endpoint settings:\nincorrectly formatted sysctl '{setting}', "
                "must be of the form 'net.X.Y.IFNAME.Z=value'"
            )
        # The docker CLI makes small letters of it.
        words = len(parts) == 5 and all(_WORD.fullmatch(part) for part in parts)
        if not words or parts[0] != "net" or parts[3].upper() != "IFNAME":
            raise InvalidParameter(
                f"invalid endpoint settings:\nunrecognised network interface sysctl '{setting}'; "
                "represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V'"
            )
        if parts[1] not in ("ipv4", "ipv6", "mpls"):
            raise InvalidParameter(
                f"invalid endpoint settings:\nunrecognised network interface sysctl '{setting}'"
            )
        parts[3] = interface
        found["/".join(parts)] = value.strip()
    return found


def _parse_flag(options: Mapping[str, str], name: str) -> bool:
    text = options[name]
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidParameter(
        f'failed to parse {name} value: {text} (strconv.ParseBool: parsing "{text}": invalid syntax)'
    )


def _check_address(name: str, text: str) -> None:
    try:
        parse_address(text)
    except InvalidParameter:
        raise InvalidParameter(f"failed to parse {name} value: {text} (nil ip)") from None
