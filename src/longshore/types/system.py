"""The daemon and its host as the Engine API describes them."""

from __future__ import annotations

import msgspec

from longshore.types.codec import ApiStruct, names


class VersionPlatform(ApiStruct):
    """What product this is."""

    Name: str = ""


class VersionComponent(ApiStruct, kw_only=True):
    """One program that takes part."""

    _omitempty = names("Details")
    Name: str
    Version: str
    Details: dict[str, str] | None = None


class SystemVersion(ApiStruct, kw_only=True):
    """Answer to GET /version."""

    _omitempty = names("Components KernelVersion Experimental BuildTime")
    Platform: VersionPlatform
    Components: list[VersionComponent] | None = None
    Version: str
    ApiVersion: str
    MinAPIVersion: str
    GitCommit: str = ""
    GoVersion: str = ""
    Os: str
    Arch: str
    KernelVersion: str = ""
    Experimental: bool = False
    BuildTime: str = ""


class PluginsInfo(ApiStruct):
    """The names of the drivers of each kind."""

    Volume: list[str] | None = None
    Network: list[str] | None = None
    Authorization: list[str] | None = None
    Log: list[str] | None = None


class IndexInfo(ApiStruct):
    """How one registry is reached."""

    Name: str = ""
    Mirrors: list[str] = msgspec.field(default_factory=list)
    Secure: bool = True
    Official: bool = False


class ServiceConfig(ApiStruct):
    """Registries: mirrors, and those reached without verification."""

    _omitempty = names("AllowNondistributableArtifactsCIDRs AllowNondistributableArtifactsHostnames")
    AllowNondistributableArtifactsCIDRs: list[str] | None = None
    AllowNondistributableArtifactsHostnames: list[str] | None = None
    InsecureRegistryCIDRs: list[str] = msgspec.field(default_factory=list)
    IndexConfigs: dict[str, IndexInfo] = msgspec.field(default_factory=dict)
    Mirrors: list[str] = msgspec.field(default_factory=list)


class RuntimeInfo(ApiStruct):
    """An OCI runtime: a program, or a containerd shim with options."""

    _omitempty = names("path runtimeArgs status")
    path: str = ""
    runtimeArgs: list[str] | None = None
    status: dict[str, str] | None = None


class SwarmInfo(ApiStruct):
    """This node's part in a swarm: none."""

    NodeID: str = ""
    NodeAddr: str = ""
    LocalNodeState: str = "inactive"
    ControlAvailable: bool = False
    Error: str = ""
    RemoteManagers: list[dict[str, str]] | None = None


class Commit(ApiStruct):
    """The source commit that a program was built from."""

    ID: str = ""


class FirewallInfo(ApiStruct):
    """Which firewall the engine's rules are written to."""

    _omitempty = names("Info")
    Driver: str = ""
    Info: list[list[str]] | None = None


class ContainerdNamespaces(ApiStruct):
    """The containerd namespaces in use."""

    Containers: str = ""
    Plugins: str = ""


class ContainerdInfo(ApiStruct):
    """The containerd in use."""

    Address: str = ""
    Namespaces: ContainerdNamespaces = msgspec.field(default_factory=ContainerdNamespaces)


class AddressPool(ApiStruct):
    """A pool that networks get their subnets from; `Size` is the prefix length of each."""

    Base: str = ""
    Size: int = 0


class DeviceInfo(ApiStruct):
    """A device that a container can ask a driver for."""

    Source: str = ""
    ID: str = ""


class SystemInfo(ApiStruct, kw_only=True):
    """Answer to GET /info. `MemTotal` in bytes."""

    _omitempty = names("DefaultAddressPools FirewallBackend Containerd DiscoveredDevices")
    ID: str
    Containers: int
    ContainersRunning: int
    ContainersPaused: int
    ContainersStopped: int
    Images: int
    Driver: str
    DriverStatus: list[list[str]]
    Plugins: PluginsInfo
    MemoryLimit: bool
    SwapLimit: bool
    CpuCfsPeriod: bool
    CpuCfsQuota: bool
    CPUShares: bool
    CPUSet: bool
    PidsLimit: bool
    IPv4Forwarding: bool
    Debug: bool
    NFd: int
    OomKillDisable: bool
    NGoroutines: int
    """asyncio tasks, the nearest thing to goroutines here."""
    SystemTime: str
    LoggingDriver: str
    CgroupDriver: str
    CgroupVersion: str
    NEventsListener: int
    KernelVersion: str
    OperatingSystem: str
    OSVersion: str
    OSType: str = "linux"
    Architecture: str
    IndexServerAddress: str = "https://index.docker.io/v1/"
    RegistryConfig: ServiceConfig
    NCPU: int
    MemTotal: int
    GenericResources: list[dict[str, str]] | None = None
    DockerRootDir: str
    HttpProxy: str = ""
    HttpsProxy: str = ""
    NoProxy: str = ""
    Name: str
    Labels: list[str]
    ExperimentalBuild: bool
    ServerVersion: str
    Runtimes: dict[str, RuntimeInfo]
    DefaultRuntime: str
    Swarm: SwarmInfo = msgspec.field(default_factory=SwarmInfo)
    LiveRestoreEnabled: bool
    Isolation: str = ""
    InitBinary: str
    ContainerdCommit: Commit = msgspec.field(default_factory=Commit)
    RuncCommit: Commit = msgspec.field(default_factory=Commit)
    InitCommit: Commit = msgspec.field(default_factory=Commit)
    SecurityOptions: list[str]
    DefaultAddressPools: list[AddressPool] | None = None
    FirewallBackend: FirewallInfo | None = None
    Containerd: ContainerdInfo | None = None
    CDISpecDirs: list[str] = msgspec.field(default_factory=list)
    DiscoveredDevices: list[DeviceInfo] | None = None
    Warnings: list[str] | None = None
