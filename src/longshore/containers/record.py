"""What is kept of a container on disk: `config.v2.json`, in dockerd's own form.

Swarm's fields, which this engine has no use for, are carried along as they are found, so that a host can
change between the two without losing anything.
"""

from __future__ import annotations

import msgspec

from longshore.types.codec import ApiStruct, names
from longshore.types.container import Config, Health, PortMap
from longshore.types.mount import Mount
from longshore.types.network import EndpointIPAMConfig, EndpointSettings
from longshore.types.timestamp import ZERO_TIME


class RecordState(ApiStruct):
    """Where the container is in its life; see `longshore.containers.state` for the rules."""

    _omitempty = names("Starting")
    Starting: bool = False
    """A start has begun that no later record tells the end of. Ours alone; dockerd skips it."""
    Running: bool = False
    Paused: bool = False
    Restarting: bool = False
    OOMKilled: bool = False
    RemovalInProgress: bool = False
    Dead: bool = False
    Pid: int = 0
    ExitCode: int = 0
    Error: str = ""
    StartedAt: str = ZERO_TIME
    FinishedAt: str = ZERO_TIME
    Health: Health | None = None


class RecordEndpoint(EndpointSettings):
    """An endpoint, with dockerd's private notes on it."""

    _omitempty = names("DesiredMacAddress")
    IPAMOperational: bool = False
    DesiredMacAddress: str = ""


class RecordNetworkSettings(ApiStruct):
    """The container's networks: what is asked for, and what the last start made of it."""

    Bridge: str = ""
    SandboxID: str = ""
    SandboxKey: str = ""
    HairpinMode: bool = False
    LinkLocalIPv6Address: str = ""
    LinkLocalIPv6PrefixLen: int = 0
    Networks: dict[str, RecordEndpoint] | None = None
    Service: msgspec.Raw | None = None
    Ports: PortMap | None = None
    SecondaryIPAddresses: list[str] | None = None
    SecondaryIPv6Addresses: list[str] | None = None
    HasSwarmEndpoint: bool = False


class RecordMountPoint(ApiStruct):
    """A mount of the container: a volume, a bind or a tmpfs, with the request it came from."""

    _omitempty = names("Mode Relabel Propagation Spec ID SkipMountpointCreation Type Name Driver")
    Source: str = ""
    Destination: str = ""
    RW: bool = False
    Name: str = ""
    Driver: str = ""
    Type: str = ""
    Mode: str = ""
    Relabel: str = ""
    Propagation: str = ""
    ID: str = ""
    Spec: Mount | None = None
    SkipMountpointCreation: bool = False
    CopyData: bool = False
    """Whether image content may still be copied up; dropped once the container is made."""


class ContainerRecord(ApiStruct, kw_only=True):
    """`config.v2.json`."""

    StreamConfig: dict[str, str] = msgspec.field(default_factory=dict)
    State: RecordState = msgspec.field(default_factory=RecordState)
    ID: str
    Created: str
    Managed: bool = False
    Path: str = ""
    Args: list[str] = msgspec.field(default_factory=list)
    Config: Config
    Image: str = ""
    NetworkSettings: RecordNetworkSettings = msgspec.field(default_factory=RecordNetworkSettings)
    LogPath: str = ""
    Name: str = ""
    Driver: str = ""
    OS: str = "linux"
    MountLabel: str = ""
    ProcessLabel: str = ""
    RestartCount: int = 0
    HasBeenStartedBefore: bool = False
    HasBeenManuallyStopped: bool = False
    MountPoints: dict[str, RecordMountPoint] = msgspec.field(default_factory=dict)
    SecretReferences: list[msgspec.Raw] | None = None
    ConfigReferences: list[msgspec.Raw] | None = None
    AppArmorProfile: str = ""
    HostnamePath: str = ""
    HostsPath: str = ""
    ShmPath: str = ""
    ResolvConfPath: str = ""
    SeccompProfile: str = ""
    NoNewPrivileges: bool = False
    LocalLogCacheMeta: dict[str, bool] = msgspec.field(default_factory=lambda: {"HaveNotifyEnabled": False})


def ipam_config(endpoint: EndpointSettings) -> EndpointIPAMConfig:
    """The addresses asked for; an empty request if there is none."""
    return endpoint.IPAMConfig or EndpointIPAMConfig()
