"""Containers as the Engine API describes them: what is asked for, and what is answered.

Fields, their order and their nulls are those of Docker's Go types (api/types/container), which is what
clients really depend on. A list or map that may be None is null in JSON until somebody sets it.
"""

from __future__ import annotations

import msgspec

from longshore.types.codec import ApiStruct, names
from longshore.types.mount import Mount, MountPoint
from longshore.types.network import EndpointSettings, PortBinding
from longshore.types.resources import Resources
from longshore.types.timestamp import ZERO_TIME

StrSlice = list[str] | str | None
"""A list of words; a bare string is accepted as a list of one."""

PortMap = dict[str, list[PortBinding] | None]
"""`80/tcp` to the places it is published at; None or empty: exposed, or published at a chosen port."""


class HealthConfig(ApiStruct):
    """How to probe a container. Durations in nanoseconds; 0 inherits."""

    _omitempty = names("Test Interval Timeout StartPeriod StartInterval Retries")
    Test: list[str] | None = None
    Interval: int = 0
    Timeout: int = 0
    StartPeriod: int = 0
    StartInterval: int = 0
    Retries: int = 0


class Config(ApiStruct):
    """What is portable about a container: image, process, environment."""

    _omitempty = names(
        "ExposedPorts Healthcheck ArgsEscaped NetworkDisabled MacAddress StopSignal StopTimeout Shell"
    )
    Hostname: str = ""
    Domainname: str = ""
    User: str = ""
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    ExposedPorts: dict[str, dict[str, str]] | None = None
    Tty: bool = False
    OpenStdin: bool = False
    StdinOnce: bool = False
    Env: list[str] | None = None
    Cmd: StrSlice = None
    Healthcheck: HealthConfig | None = None
    ArgsEscaped: bool = False
    Image: str = ""
    Volumes: dict[str, dict[str, str]] | None = None
    WorkingDir: str = ""
    Entrypoint: StrSlice = None
    NetworkDisabled: bool = False
    MacAddress: str = ""
    OnBuild: list[str] | None = None
    Labels: dict[str, str] | None = None
    StopSignal: str = ""
    StopTimeout: int | None = None
    Shell: StrSlice = None

    def __post_init__(self) -> None:
        for name in ("Cmd", "Entrypoint", "Shell"):
            value = getattr(self, name)
            if isinstance(value, str):
                setattr(self, name, [value])

    @property
    def cmd(self) -> list[str]:
        """The command's words; empty if none."""
        return list(self.Cmd or [])

    @property
    def entrypoint(self) -> list[str]:
        """The entrypoint's words; empty if none."""
        return list(self.Entrypoint or [])


class LogConfig(ApiStruct):
    """Which log driver, and its options."""

    Type: str = ""
    Config: dict[str, str] | None = None


class RestartPolicy(ApiStruct):
    """`no`, `always`, `unless-stopped` or `on-failure` with a maximum count (0: no limit)."""

    Name: str = ""
    MaximumRetryCount: int = 0


class HostConfig(Resources):
    """What ties a container to this host: mounts, network, namespaces, limits, security."""

    _omitempty = names(
        "Annotations StorageOpt Tmpfs Sysctls Runtime Mounts Init KernelMemory KernelMemoryTCP"
    )
    Binds: list[str] | None = None
    ContainerIDFile: str = ""
    LogConfig: LogConfig = msgspec.field(default_factory=LogConfig)
    NetworkMode: str = ""
    PortBindings: PortMap | None = None
    RestartPolicy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    AutoRemove: bool = False
    VolumeDriver: str = ""
    VolumesFrom: list[str] | None = None
    ConsoleSize: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    Annotations: dict[str, str] | None = None
    CapAdd: StrSlice = None
    CapDrop: StrSlice = None
    CgroupnsMode: str = ""
    Dns: list[str] | None = None
    DnsOptions: list[str] | None = None
    DnsSearch: list[str] | None = None
    ExtraHosts: list[str] | None = None
    GroupAdd: list[str] | None = None
    IpcMode: str = ""
    Cgroup: str = ""
    Links: list[str] | None = None
    OomScoreAdj: int = 0
    PidMode: str = ""
    Privileged: bool = False
    PublishAllPorts: bool = False
    ReadonlyRootfs: bool = False
    SecurityOpt: list[str] | None = None
    StorageOpt: dict[str, str] | None = None
    Tmpfs: dict[str, str] | None = None
    UTSMode: str = ""
    UsernsMode: str = ""
    ShmSize: int = 0
    Sysctls: dict[str, str] | None = None
    Runtime: str = ""
    Isolation: str = ""
    Mounts: list[Mount] | None = None
    MaskedPaths: list[str] | None = None
    ReadonlyPaths: list[str] | None = None
    Init: bool | None = None

    def __post_init__(self) -> None:
        for name in ("CapAdd", "CapDrop"):
            value = getattr(self, name)
            if isinstance(value, str):
                setattr(self, name, [value])


class NetworkingConfig(ApiStruct):
    """The networks to connect to at creation."""

    EndpointsConfig: dict[str, EndpointSettings | None] | None = None


class ContainerCreateRequest(Config):
    """Body of POST /containers/create: a Config with the host's part beside it."""

    HostConfig: HostConfig | None = None
    NetworkingConfig: NetworkingConfig | None = None


class ContainerCreateResponse(ApiStruct):
    """Answer to POST /containers/create."""

    Id: str
    Warnings: list[str] = msgspec.field(default_factory=list)


class HealthcheckResult(ApiStruct):
    """One probe: when, and how it ended."""

    Start: str = ZERO_TIME
    End: str = ZERO_TIME
    ExitCode: int = 0
    Output: str = ""


class Health(ApiStruct):
    """`none`, `starting`, `healthy` or `unhealthy`, with the last five probes."""

    Status: str = "none"
    FailingStreak: int = 0
    Log: list[HealthcheckResult] | None = None


class State(ApiStruct):
    """Where a container is in its life. Times are RFC 3339 with nanoseconds, UTC."""

    _omitempty = names("Health")
    Status: str = "created"
    Running: bool = False
    Paused: bool = False
    Restarting: bool = False
    OOMKilled: bool = False
    Dead: bool = False
    Pid: int = 0
    ExitCode: int = 0
    Error: str = ""
    StartedAt: str = ZERO_TIME
    FinishedAt: str = ZERO_TIME
    Health: Health | None = None


class Address(ApiStruct):
    """A secondary address."""

    Addr: str = ""
    PrefixLen: int = 0


class NetworkSettings(ApiStruct):
    """A container's sandbox and endpoints, as inspect shows them."""

    Bridge: str = ""
    SandboxID: str = ""
    SandboxKey: str = ""
    Ports: PortMap | None = None
    HairpinMode: bool = False
    LinkLocalIPv6Address: str = ""
    LinkLocalIPv6PrefixLen: int = 0
    SecondaryIPAddresses: list[Address] | None = None
    SecondaryIPv6Addresses: list[Address] | None = None
    EndpointID: str = ""
    Gateway: str = ""
    GlobalIPv6Address: str = ""
    GlobalIPv6PrefixLen: int = 0
    IPAddress: str = ""
    IPPrefixLen: int = 0
    IPv6Gateway: str = ""
    MacAddress: str = ""
    Networks: dict[str, EndpointSettings] | None = None


class GraphDriverData(ApiStruct):
    """Where the container's file system lies."""

    Data: dict[str, str] | None = None
    Name: str = ""


class ContainerInspectResponse(ApiStruct, kw_only=True):
    """Answer to GET /containers/{id}/json."""

    _omitempty = names("SizeRw SizeRootFs ImageManifestDescriptor")
    Id: str
    Created: str
    Path: str
    Args: list[str]
    State: State
    Image: str
    ResolvConfPath: str = ""
    HostnamePath: str = ""
    HostsPath: str = ""
    LogPath: str = ""
    Name: str = ""
    RestartCount: int = 0
    Driver: str = ""
    Platform: str = "linux"
    MountLabel: str = ""
    ProcessLabel: str = ""
    AppArmorProfile: str = ""
    ExecIDs: list[str] | None = None
    HostConfig: HostConfig
    GraphDriver: GraphDriverData
    SizeRw: int | None = None
    SizeRootFs: int | None = None
    Mounts: list[MountPoint]
    Config: Config
    NetworkSettings: NetworkSettings


class Port(ApiStruct):
    """A port in `docker ps`."""

    _omitempty = names("IP PublicPort")
    IP: str = ""
    PrivatePort: int = 0
    PublicPort: int = 0
    Type: str = ""


class SummaryHostConfig(ApiStruct):
    """The part of HostConfig that a list shows."""

    _omitempty = names("NetworkMode Annotations")
    NetworkMode: str = ""
    Annotations: dict[str, str] | None = None


class SummaryNetworkSettings(ApiStruct):
    """The part of NetworkSettings that a list shows."""

    Networks: dict[str, EndpointSettings] | None = None


class ContainerSummary(ApiStruct, kw_only=True):
    """One entry of GET /containers/json. `Created` in seconds since the epoch."""

    _omitempty = names("SizeRw SizeRootFs")
    Id: str
    Names: list[str]
    Image: str
    ImageID: str
    Command: str
    Created: int
    Ports: list[Port]
    SizeRw: int = 0
    SizeRootFs: int = 0
    Labels: dict[str, str]
    State: str
    Status: str
    HostConfig: SummaryHostConfig
    NetworkSettings: SummaryNetworkSettings
    Mounts: list[MountPoint]


class WaitExitError(ApiStruct):
    """Why waiting, or the removal that was waited for, failed."""

    Message: str = ""


class ContainerWaitResponse(ApiStruct):
    """Answer to POST /containers/{id}/wait."""

    _omitempty = names("Error")
    StatusCode: int = 0
    Error: WaitExitError | None = None
