"""Networks and endpoints as the Engine API describes them."""

from __future__ import annotations

import msgspec

from longshore.types.codec import ApiStruct, names


class PortBinding(ApiStruct):
    """A place on the host; an empty address is the daemon's default, an empty or 0 port is chosen."""

    HostIp: str = ""
    HostPort: str = ""


class EndpointIPAMConfig(ApiStruct):
    """Addresses that the user asks for."""

    _omitempty = names("IPv4Address IPv6Address LinkLocalIPs")
    IPv4Address: str = ""
    IPv6Address: str = ""
    LinkLocalIPs: list[str] | None = None


class EndpointSettings(ApiStruct):
    """A container's place on one network: what was asked for, then what it has while it runs."""

    IPAMConfig: EndpointIPAMConfig | None = None
    Links: list[str] | None = None
    Aliases: list[str] | None = None
    MacAddress: str = ""
    DriverOpts: dict[str, str] | None = None
    GwPriority: int = 0
    NetworkID: str = ""
    EndpointID: str = ""
    Gateway: str = ""
    IPAddress: str = ""
    IPPrefixLen: int = 0
    IPv6Gateway: str = ""
    GlobalIPv6Address: str = ""
    GlobalIPv6PrefixLen: int = 0
    DNSNames: list[str] | None = None


class IPAMConfig(ApiStruct):
    """One pool of addresses."""

    _omitempty = names("Subnet IPRange Gateway AuxiliaryAddresses")
    Subnet: str = ""
    IPRange: str = ""
    Gateway: str = ""
    AuxiliaryAddresses: dict[str, str] | None = None


class IPAM(ApiStruct):
    """How a network manages addresses."""

    Driver: str = "default"
    Options: dict[str, str] | None = None
    Config: list[IPAMConfig] | None = None


class ConfigReference(ApiStruct):
    """The config-only network that another takes its settings from."""

    Network: str = ""


class NetworkContainer(ApiStruct):
    """A container on a network, as the network's inspect shows it."""

    Name: str = ""
    EndpointID: str = ""
    MacAddress: str = ""
    IPv4Address: str = ""
    IPv6Address: str = ""


class NetworkInspect(ApiStruct):
    """Answer to GET /networks/{id}."""

    Name: str
    Id: str
    Created: str
    Scope: str = "local"
    Driver: str = ""
    EnableIPv4: bool = True
    EnableIPv6: bool = False
    IPAM: IPAM = msgspec.field(default_factory=IPAM)
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigFrom: ConfigReference = msgspec.field(default_factory=ConfigReference)
    ConfigOnly: bool = False
    Containers: dict[str, NetworkContainer] = msgspec.field(default_factory=dict)
    Options: dict[str, str] | None = None
    Labels: dict[str, str] | None = None


class NetworkCreateRequest(ApiStruct):
    """Body of POST /networks/create."""

    Name: str = ""
    CheckDuplicate: bool | None = None
    Driver: str = ""
    Scope: str = ""
    EnableIPv4: bool | None = None
    EnableIPv6: bool | None = None
    IPAM: IPAM | None = None
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigOnly: bool = False
    ConfigFrom: ConfigReference | None = None
    Options: dict[str, str] | None = None
    Labels: dict[str, str] | None = None


class NetworkCreateResponse(ApiStruct):
    """Answer to POST /networks/create."""

    Id: str
    Warning: str = ""


class NetworkConnectRequest(ApiStruct):
    """Body of POST /networks/{id}/connect."""

    Container: str = ""
    EndpointConfig: EndpointSettings | None = None


class NetworkDisconnectRequest(ApiStruct):
    """Body of POST /networks/{id}/disconnect."""

    Container: str = ""
    Force: bool = False
