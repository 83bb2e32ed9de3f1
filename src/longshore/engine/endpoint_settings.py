"""What may be asked of an endpoint, as moby's validateEndpointSettings has it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address

from longshore.errors import InvalidParameter
from longshore.network.create import PREDEFINED
from longshore.network.network import Network
from longshore.network.options import endpoint_sysctls
from longshore.types.network import EndpointIPAMConfig, EndpointSettings


def verify_endpoint(name: str, settings: EndpointSettings, network: Network | None) -> None:
    """Check what is asked of an endpoint on the network of that name, which need not be there yet.

    Raises InvalidParameter with moby's messages.
    """
    wanted = settings.IPAMConfig or EndpointIPAMConfig()
    problems = list(_problems(network.name if network is not None else name, wanted))
    if problems:
        _refuse(name, "invalid endpoint settings:\n" + "\n".join(problems))
    if network is not None and network.behaviour.addressed:
        network.check_wanted(wanted.IPv4Address, wanted.IPv6Address)
    if settings.MacAddress and not _is_mac(settings.MacAddress):
        _refuse(name, f"invalid MAC address {settings.MacAddress}")
    try:
        endpoint_sysctls(settings.DriverOpts or {}, "eth0")
    except InvalidParameter as exc:
        _refuse(name, exc.message)


def _problems(name: str, wanted: EndpointIPAMConfig) -> Iterator[str]:
    if name in PREDEFINED and (wanted.IPv4Address or wanted.IPv6Address):
        yield "user specified IP address is supported on user defined networks only"
    if wanted.IPv4Address and _version(wanted.IPv4Address) != 4:
        yield f"invalid IPv4 address: {wanted.IPv4Address}"
    if wanted.IPv6Address and _version(wanted.IPv6Address) != 6:
        yield f"invalid IPv6 address: {wanted.IPv6Address}"
    for address in wanted.LinkLocalIPs or []:
        if not _version(address):
            yield f"invalid link-local IP address: {address}"


def _version(text: str) -> int:
    """Of an address that an interface can have; 0 for anything else."""
    try:
        address = ip_address(text)
    except ValueError:
        return 0
    if isinstance(address, IPv6Address) and (address.scope_id or address.ipv4_mapped):
        return 0
    return 0 if address.is_unspecified else address.version


def _is_mac(text: str) -> bool:
    octets = text.split("-" if "-" in text else ":")
    return len(octets) == 6 and all(len(one) == 2 and one.isalnum() for one in octets) and _is_hex(octets)


def _is_hex(octets: list[str]) -> bool:
    try:
        return bool(bytes.fromhex("".join(octets)))
    except ValueError:
        return False


def _refuse(name: str, problem: str) -> None:
    raise InvalidParameter(f"invalid config for network {name}: {problem}")
