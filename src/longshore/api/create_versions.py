"""What a client means by a container it asks for, by the version of the API it speaks.

Settings that its version does not have are ignored, or refused where ignoring them would be less safe than it
expects; settings that moved are moved. Follows moby's postContainersCreate, messages included.
"""

from __future__ import annotations

from longshore.engine.create import default_network_mode
from longshore.errors import InvalidParameter, System
from longshore.types.container import ContainerCreateRequest, HostConfig, NetworkingConfig
from longshore.types.mount import Mount
from longshore.types.network import EndpointSettings

ENDPOINT_SYSCTLS = "com.docker.network.endpoint.sysctls"

Version = tuple[int, ...]


def adapt_create_request(request: ContainerCreateRequest, version: Version) -> list[str]:
    """Change `request` in place to what it means in the newest version. Returns warnings.

    Raises InvalidParameter, System.
    """
    host_config = request.HostConfig = request.HostConfig or HostConfig()
    networking = request.NetworkingConfig = request.NetworkingConfig or NetworkingConfig()
    endpoints = {name: one or EndpointSettings() for name, one in (networking.EndpointsConfig or {}).items()}
    default_network_mode(host_config, endpoints)

    _ignore_what_is_newer(request, host_config, version)
    for mount in host_config.Mounts or []:
        _adapt_mount(mount, version)
    if version < (1, 44) and len(endpoints) > 1:
        raise InvalidParameter(
            f"Container cannot be created with multiple network endpoints: {', '.join(endpoints)}"
        )
    if version < (1, 48):
        for endpoint in endpoints.values():
            endpoint.GwPriority = 0

    warnings = [
        _volume_driver_warning(host_config, version),
        _migrate_mac_address(request, host_config, endpoints, version),
        _migrate_sysctls(host_config, endpoints, version),
    ]
    networking.EndpointsConfig = {**endpoints}
    if host_config.PidsLimit is not None and host_config.PidsLimit <= 0:
        host_config.PidsLimit = None  # 0 and negative numbers all ask for no limit.
    if host_config.MemorySwappiness == -1:
        host_config.MemorySwappiness = None  # so do these for the kernel's own
    return [warning for warning in warnings if warning]


def _ignore_what_is_newer(request: ContainerCreateRequest, host_config: HostConfig, version: Version) -> None:
    if version < (1, 25):
        host_config.AutoRemove = False
    if version < (1, 40):
        host_config.KernelMemoryTCP = 0
        host_config.IpcMode = host_config.IpcMode or "shareable"
    if version < (1, 42):
        host_config.ConsoleSize = [0, 0]
    else:
        host_config.KernelMemory = 0  # gone since
    if version < (1, 43):
        host_config.Annotations = None
    if version < (1, 44) and request.Healthcheck is not None:
        request.Healthcheck.StartInterval = 0


def _adapt_mount(mount: Mount, version: Version) -> None:
    if version < (1, 48) and mount.Type == "image":
        raise InvalidParameter('Mount type "Image" needs API v1.48 or newer')
    if version < (1, 42):  # Contradictions were not noticed, and nothing came of them.
        if mount.Type != "volume":
            mount.VolumeOptions = None
        if mount.Type != "tmpfs":
            mount.TmpfsOptions = None
    else:
        for option, kind in (("VolumeOptions", "volume"), ("BindOptions", "bind"), ("TmpfsOptions", "tmpfs")):
            if getattr(mount, option) is not None and mount.Type != kind:
                raise InvalidParameter(f'{option} must not be specified on mount type "{mount.Type}"')
    if mount.BindOptions is not None:
        if version < (1, 40):
            mount.BindOptions.NonRecursive = False
        if version < (1, 42):
            mount.BindOptions.CreateMountpoint = False
        if version < (1, 44) and mount.Type == "bind" and mount.BindOptions.ReadOnlyForceRecursive:
            raise InvalidParameter("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if version < (1, 45) and mount.VolumeOptions is not None and mount.VolumeOptions.Subpath:
        raise InvalidParameter("VolumeOptions.Subpath needs API v1.45 or newer")
    if version < (1, 46) and mount.TmpfsOptions is not None:
        mount.TmpfsOptions.Options = None


def _volume_driver_warning(host_config: HostConfig, version: Version) -> str:
    if not host_config.VolumeDriver or version < (1, 48):
        return ""
    for mount in host_config.Mounts or []:
        driver = mount.VolumeOptions.DriverConfig if mount.VolumeOptions is not None else None
        if mount.Type == "volume" and not (driver and driver.Name):
            return (
                "WARNING: the container-wide volume-driver configuration is ignored for volumes specified "
                "via 'mount'. Use '--mount type=volume,volume-driver=...' instead"
            )
    return ""


def _migrate_mac_address(
    request: ContainerCreateRequest,
    host_config: HostConfig,
    endpoints: dict[str, EndpointSettings],
    version: Version,
) -> str:
    """The container's address becomes that of its endpoint on the network of its mode."""
    wanted = request.MacAddress
    own_network = host_config.NetworkMode not in ("none", "host") and not _joined(host_config)
    if version < (1, 44):
        if not wanted:
            for endpoint in endpoints.values():
                endpoint.MacAddress = ""
        elif own_network:
            _endpoint_of_mode(host_config, endpoints, version).MacAddress = wanted
        else:
            raise InvalidParameter("conflicting options: mac-address and the network mode")
        return ""
    if not wanted:
        return ""
    if own_network:
        try:
            endpoint = _endpoint_of_mode(host_config, endpoints, version)
        except InvalidParameter as exc:
            raise InvalidParameter(
                f"unable to migrate container-wide MAC address to a specific network: {exc.message}"
            ) from exc
        if endpoint.MacAddress not in ("", wanted):
            raise InvalidParameter(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main "
                "network, or be left empty"
            )
        endpoint.MacAddress = wanted
    request.MacAddress = ""
    return (
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig "
        "instead."
    )


def _migrate_sysctls(
    host_config: HostConfig, endpoints: dict[str, EndpointSettings], version: Version
) -> str:
    """Parameters of eth0, which does not exist yet when the others are set, go to its endpoint."""
    if host_config.NetworkMode == "host" or _joined(host_config):
        return ""
    sysctls = host_config.Sysctls or {}
    moved: dict[str, str] = {}
    for name, value in sysctls.items():
        parts = name.split(".", 4)
        if len(parts) != 5 or parts[0] != "net" or not parts[3].startswith("eth"):
            continue
        if version > (1, 47):
            raise System(
                f'interface specific sysctl setting "{name}" must be supplied using driver option '
                f"'{ENDPOINT_SYSCTLS}'"
            )
        if parts[3] != "eth0":
            raise System(
                f"unable to determine network endpoint for sysctl {name}, use driver option "
                f"'{ENDPOINT_SYSCTLS}' to set per-interface sysctls"
            )
        moved[name] = f"{parts[0]}.{parts[1]}.{parts[2]}.IFNAME.{parts[4]}={value}"
    if not moved:
        return ""
    try:
        endpoint = _endpoint_of_mode(host_config, endpoints, version)
    except InvalidParameter as exc:
        raise System(f"unable to find a network for sysctl {next(iter(moved))}: {exc.message}") from exc
    options, settings = dict(endpoint.DriverOpts or {}), ",".join(moved.values())
    # Those given for the endpoint itself come last, and win.
    options[ENDPOINT_SYSCTLS] = ",".join(filter(None, [settings, options.get(ENDPOINT_SYSCTLS, "")]))
    endpoint.DriverOpts = options
    host_config.Sysctls = {name: value for name, value in sysctls.items() if name not in moved}
    return f'Migrated sysctl "{",".join(moved)}" to DriverOpts{{"{ENDPOINT_SYSCTLS}":"{settings}"}}.'


def _joined(host_config: HostConfig) -> bool:
    return host_config.NetworkMode.partition(":")[0] == "container"


def _endpoint_of_mode(
    host_config: HostConfig, endpoints: dict[str, EndpointSettings], version: Version
) -> EndpointSettings:
    """The endpoint on the network that NetworkMode names, made if there is none at all."""
    if not endpoints:
        endpoints[host_config.NetworkMode] = EndpointSettings()
    elif version < (1, 44):
        return next(iter(endpoints.values()))
    if host_config.NetworkMode not in endpoints:
        raise InvalidParameter(
            "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks"
        )
    return endpoints[host_config.NetworkMode]
