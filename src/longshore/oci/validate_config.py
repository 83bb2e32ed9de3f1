"""Checks of a container's portable part, its Config, and of ports."""

from __future__ import annotations

import re
from ipaddress import ip_address

from longshore.errors import InvalidParameter
from longshore.linux.signals import parse_signal
from longshore.types.container import Config, HealthConfig, PortMap

_MINIMUM_DURATION = 1_000_000  # nanoseconds
_MAC_ADDRESS = re.compile(r"[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}")


def verify_config(config: Config) -> None:
    """Environment, working directory, stop signal, health check, ports. Raises InvalidParameter."""
    for variable in config.Env or []:
        if not variable.partition("=")[0]:
            raise InvalidParameter(f"invalid environment variable: {variable}")
    if config.WorkingDir and not config.WorkingDir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{config.WorkingDir}' is invalid, it needs to be an absolute path"
        )
    if config.StopSignal:
        parse_signal(config.StopSignal)
    verify_health_check(config.Healthcheck)
    for port in config.ExposedPorts or {}:
        parse_port(port)
    if config.MacAddress and not _MAC_ADDRESS.fullmatch(config.MacAddress):
        raise InvalidParameter(f"invalid MAC address: address {config.MacAddress}: invalid MAC address")
    for name in (config.Hostname, config.Domainname):
        if "\n" in name or "\0" in name:
            raise InvalidParameter("invalid hostname: it must be a single line")


def verify_health_check(check: HealthConfig | None) -> None:
    """0 inherits; anything else has a least value. Raises InvalidParameter."""
    if check is None:
        return
    for name in ("Interval", "Timeout"):
        _verify_duration(name, getattr(check, name))
    if check.Retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")
    for name in ("StartPeriod", "StartInterval"):
        _verify_duration(name, getattr(check, name))


def _verify_duration(name: str, nanoseconds: int) -> None:
    if nanoseconds != 0 and nanoseconds < _MINIMUM_DURATION:
        raise InvalidParameter(f"{name} in Healthcheck cannot be less than 1ms")


def parse_port(text: str) -> tuple[int, int, str]:
    """First port, last port and protocol of `80`, `80/udp` or `8000-8010/tcp`. Raises InvalidParameter."""
    ports, _, protocol = text.partition("/")
    first, _, last = ports.partition("-")
    numbers = [_port_number(number) for number in (first, last or first)]
    protocol = (protocol or "tcp").lower()
    if None in numbers or protocol not in ("tcp", "udp", "sctp"):
        wrong = ports if None in numbers else text
        raise InvalidParameter(f'invalid port specification: "{wrong}"')
    low, high = (number or 0 for number in numbers)
    if high < low:
        raise InvalidParameter(f'invalid port specification: "{text}"')
    return low, high, protocol


def verify_port_bindings(bindings: PortMap | None) -> None:
    """Raises InvalidParameter with moby's messages."""
    for port, places in (bindings or {}).items():
        parse_port(port)
        for place in places or []:
            if place.HostIp and not _is_address(place.HostIp):
                raise InvalidParameter(f"invalid IP address: {place.HostIp}")
            if place.HostPort:
                low, _, high = place.HostPort.partition("-")
                if _port_number(low) is None or _port_number(high or low) is None:
                    raise InvalidParameter(f'invalid port specification: "{place.HostPort}"')


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # A zone may be called anything.


def _port_number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        return None
    return int(text)
