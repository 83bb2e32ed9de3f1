"""The daemon's configuration: dockerd's flags and daemon.json, one typed structure for both.

Each field of Config is a directive of daemon.json (`data_root` is `data-root`), and its Option says how the
same thing is called as a flag. Everything else, the command line and its help included, is made from that.
"""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Annotated, Any

import msgspec

from longshore.errors import InvalidParameter
from longshore.types.resources import Ulimit

DEFAULT_HOST = "unix:///var/run/docker.sock"
DEFAULT_CONFIG_FILE = "/etc/docker/daemon.json"


@dataclass(frozen=True, slots=True)
class Option:
    """How a directive is said on the command line, and when it takes effect."""

    help: str
    flag: str = ""
    """Without dashes; empty if it is the directive's own name. `-` means there is no flag."""
    short: str = ""
    reload: bool = False
    """Whether SIGHUP makes a change effective, as in dockerd."""
    unsupported: str = ""
    """Why a value other than the default cannot be honoured; the daemon then refuses to start."""
    ignored: str = ""
    """Why a value has no effect; the daemon then warns."""
    choices: tuple[str, ...] = ()
    group: str = ""
    """The heading it has in --help; empty is that of the option before it."""


@dataclass(frozen=True, slots=True)
class Directive:
    """One setting: its attribute of Config, its key in daemon.json, its type, and its Option."""

    attribute: str
    key: str
    kind: Any
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """The flag's name without dashes; empty if there is none."""
        return "" if self.option.flag == "-" else self.option.flag or self.key


class RuntimeConfig(msgspec.Struct, rename={"runtime_args": "runtimeArgs", "type": "runtimeType"}):
    """An OCI runtime by path and arguments, or a containerd shim by its type and options."""

    path: str = ""
    runtime_args: list[str] = []
    type: str = ""
    options: dict[str, Any] = {}


class AddressPoolConfig(msgspec.Struct):
    """A range that networks get their subnets from, each of prefix length `size`."""

    base: str
    size: int


_NO_SWARM = "swarm mode is not available"
_NO_PLUGINS = "plugins are not available"


class Config(msgspec.Struct, kw_only=True, rename="kebab", omit_defaults=True):
    """The daemon's settings. Lists and maps are never None."""

    data_root: Annotated[str, Option("Root directory of persistent Docker state", group="Places")] = (
        "/var/lib/docker"
    )
    exec_root: Annotated[str, Option("Root directory for execution state files")] = "/var/run/docker"
    pidfile: Annotated[str, Option("Path to use for daemon PID file", short="p")] = "/var/run/docker.pid"

    hosts: Annotated[list[str], Option("Daemon socket(s) to connect to", "host", "H", group="API")] = []
    group: Annotated[str, Option("Group for the unix socket", short="G")] = "docker"
    tls: Annotated[bool, Option("Use TLS; implied by --tlsverify")] = False
    tlsverify: Annotated[bool, Option("Use TLS and verify the remote")] = False
    tlscacert: Annotated[str, Option("Trust certs signed only by this CA")] = "/root/.docker/ca.pem"
    tlscert: Annotated[str, Option("Path to TLS certificate file")] = "/root/.docker/cert.pem"
    tlskey: Annotated[str, Option("Path to TLS key file")] = "/root/.docker/key.pem"
    authorization_plugins: Annotated[
        list[str],
        Option("Authorization plugins to load", "authorization-plugin", unsupported=_NO_PLUGINS, reload=True),
    ] = []
    metrics_addr: Annotated[
        str, Option("Address and port to serve the metrics API on", unsupported="there is no metrics API yet")
    ] = ""

    debug: Annotated[bool, Option("Enable debug mode", short="D", reload=True, group="Daemon")] = False
    log_level: Annotated[
        str,
        Option("Set the logging level", short="l", choices=("debug", "info", "warn", "error", "fatal")),
    ] = "info"
    log_format: Annotated[str, Option("Set the logging format", choices=("text", "json"))] = "text"
    raw_logs: Annotated[
        bool, Option("Full timestamps without ANSI coloring", ignored="logs are never coloured")
    ] = False
    experimental: Annotated[bool, Option("Enable experimental features")] = False
    features: Annotated[
        dict[str, bool],
        Option("Enable feature in the daemon: buildkit is the one there is", "feature", reload=True),
    ] = {}
    labels: Annotated[list[str], Option("Set key=value labels to the daemon", "label", reload=True)] = []
    live_restore: Annotated[
        bool, Option("Enable live restore of docker when containers are still running", reload=True)
    ] = False
    shutdown_timeout: Annotated[
        int, Option("Set the default shutdown timeout, seconds; -1 is none", reload=True)
    ] = 15
    oom_score_adjust: Annotated[
        int, Option("Set the oom_score_adj for the daemon", unsupported="removed; use the service manager")
    ] = 0
    rootless: Annotated[
        bool, Option("Enable rootless mode", unsupported="rootless mode is not available")
    ] = False

    cgroup_parent: Annotated[str, Option("Set parent cgroup for all containers", group="Containers")] = ""
    default_cgroupns_mode: Annotated[
        str, Option("Default mode for containers cgroup namespace", choices=("", "host", "private"))
    ] = ""
    default_ipc_mode: Annotated[
        str, Option("Default mode for containers ipc", choices=("shareable", "private"))
    ] = "private"
    default_shm_size: Annotated[str, Option("Default shm size for containers")] = "64MiB"
    default_ulimits: Annotated[
        dict[str, Ulimit], Option("Default ulimits for containers", "default-ulimit", reload=True)
    ] = {}
    init: Annotated[
        bool, Option("Run an init in the container to forward signals and reap processes", reload=True)
    ] = False
    init_path: Annotated[str, Option("Path to the docker-init binary")] = ""
    no_new_privileges: Annotated[bool, Option("Set no-new-privileges by default for new containers")] = False
    seccomp_profile: Annotated[
        str, Option('Path to seccomp profile; "unconfined" disables the default profile')
    ] = ""
    selinux_enabled: Annotated[
        bool, Option("Enable selinux support", unsupported="SELinux is not supported")
    ] = False
    userns_remap: Annotated[
        str,
        Option("User/Group setting for user namespaces"),
    ] = ""
    exec_opts: Annotated[list[str], Option("Runtime execution options", "exec-opt")] = []
    cdi_spec_dirs: Annotated[
        list[str],
        Option("CDI specification directories to use; /etc/cdi and /var/run/cdi if not said", "cdi-spec-dir"),
    ] = []
    cpu_rt_period: Annotated[
        int, Option("Limit the CPU real-time period in microseconds for the parent cgroup of all containers")
    ] = 0
    cpu_rt_runtime: Annotated[
        int, Option("Limit the CPU real-time runtime in microseconds for the parent cgroup of all containers")
    ] = 0
    log_driver: Annotated[str, Option("Default driver for container logs")] = "json-file"
    log_opts: Annotated[dict[str, str], Option("Default log driver options for containers", "log-opt")] = {}

    runtimes: Annotated[
        dict[str, RuntimeConfig],
        Option("Register an additional OCI compatible runtime", "add-runtime", reload=True, group="Runtimes"),
    ] = {}
    default_runtime: Annotated[str, Option("Default OCI runtime for containers", reload=True)] = "runc"
    containerd: Annotated[str, Option("containerd grpc address; without it a containerd is started")] = ""
    containerd_namespace: Annotated[str, Option("Containerd namespace to use")] = "moby"
    containerd_plugin_namespace: Annotated[
        str,
        Option(
            "Containerd namespace to use for plugins", "containerd-plugins-namespace", ignored=_NO_PLUGINS
        ),
    ] = "plugins.moby"
    cri_containerd: Annotated[
        bool, Option("Start containerd with cri", unsupported="the containerd that is started serves no CRI")
    ] = False

    storage_driver: Annotated[str, Option("Storage driver to use", short="s", group="Storage")] = ""
    storage_opts: Annotated[list[str], Option("Storage driver options", "storage-opt")] = []

    bridge: Annotated[str, Option("Attach containers to a network bridge", short="b", group="Networks")] = ""
    bip: Annotated[str, Option("Specify network bridge IP")] = ""
    bip6: Annotated[str, Option("Specify default-bridge IPv6 network")] = ""
    fixed_cidr: Annotated[str, Option("IPv4 subnet for fixed IPs")] = ""
    fixed_cidr_v6: Annotated[str, Option("IPv6 subnet for fixed IPs")] = ""
    default_gateway: Annotated[str, Option("Container default gateway IPv4 address")] = ""
    default_gateway_v6: Annotated[str, Option("Container default gateway IPv6 address")] = ""
    default_address_pools: Annotated[
        list[AddressPoolConfig], Option("Default address pools for local networks", "default-address-pool")
    ] = []
    default_network_opts: Annotated[
        dict[str, dict[str, str]],
        Option("Default network options", "default-network-opt"),
    ] = {}
    mtu: Annotated[int, Option("Set the MTU for the default bridge network")] = 0
    dns: Annotated[list[str], Option("DNS server to use")] = []
    dns_opts: Annotated[list[str], Option("DNS options to use", "dns-opt")] = []
    dns_search: Annotated[list[str], Option("DNS search domains to use")] = []
    host_gateway_ips: Annotated[
        list[str],
        Option(
            "IP addresses that the special 'host-gateway' string in --add-host resolves to", "host-gateway-ip"
        ),
    ] = []
    icc: Annotated[bool, Option("Enable inter-container communication")] = True
    ip: Annotated[str, Option("Host IP for port publishing from the default bridge network")] = "0.0.0.0"
    ip_forward: Annotated[bool, Option("Enable IP forwarding in the kernel")] = True
    ip_forward_no_drop: Annotated[
        bool,
        Option(
            "Do not set the filter-FORWARD policy to DROP",
            ignored="the policy of others' chains is never set",
        ),
    ] = False
    ip_masq: Annotated[bool, Option("Enable IP masquerading for the default bridge network")] = True
    iptables: Annotated[bool, Option("Enable addition of firewall rules")] = True
    ip6tables: Annotated[bool, Option("Enable addition of IPv6 firewall rules")] = True
    ipv6: Annotated[bool, Option("Enable IPv6 networking for the default bridge network")] = False
    allow_direct_routing: Annotated[
        bool,
        Option("Allow remote access to published ports on container IP addresses"),
    ] = False
    firewall_backend: Annotated[str, Option("Firewall backend to use", choices=("", "nftables"))] = ""
    userland_proxy: Annotated[bool, Option("Use userland proxy for loopback traffic")] = True
    userland_proxy_path: Annotated[
        str, Option("Path to the userland proxy binary", ignored="the daemon relays by itself")
    ] = ""
    warm_sandboxes: Annotated[
        int, Option("Network namespaces to keep ready for containers that start; 0 keeps none")
    ] = 4
    network_control_plane_mtu: Annotated[int, Option("Network Control plane MTU", ignored=_NO_SWARM)] = 1500
    swarm_default_advertise_addr: Annotated[
        str, Option("Default address for swarm advertised address", ignored=_NO_SWARM)
    ] = ""
    node_generic_resources: Annotated[
        list[str],
        Option("Advertise user-defined resource", "node-generic-resource", ignored=_NO_SWARM, reload=True),
    ] = []

    registry_mirrors: Annotated[
        list[str],
        Option(
            "Preferred registry mirror",
            "registry-mirror",
            reload=True,
            group="Registries",
        ),
    ] = []
    insecure_registries: Annotated[
        list[str],
        Option("Enable insecure registry communication", "insecure-registry", reload=True),
    ] = []
    allow_nondistributable_artifacts: Annotated[
        list[str],
        Option(
            "Allow push of nondistributable artifacts to registry",
            ignored="nothing tells such layers from others any more",
            reload=True,
        ),
    ] = []
    max_concurrent_downloads: Annotated[int, Option("Set the max concurrent downloads", reload=True)] = 3
    max_concurrent_uploads: Annotated[int, Option("Set the max concurrent uploads", reload=True)] = 5
    max_download_attempts: Annotated[
        int, Option("Set the max download attempts for each pull", reload=True)
    ] = 5
    builder: Annotated[
        dict[str, Any], Option("Settings of the builder", "-", ignored="there is no build cache to collect")
    ] = {}
    proxies: Annotated[dict[str, str], Option("Proxies for registries", "-")] = {}

    config_file: str = DEFAULT_CONFIG_FILE
    """Where daemon.json was looked for; SIGHUP reads it again."""
    from_flags: tuple[str, ...] = ()
    """The attributes that flags set, which the file may not set as well."""

    @property
    def cdi_directories(self) -> list[str]:
        """`cdi_spec_dirs`, or the default ones; a later one goes before an earlier one."""
        return list(filter(None, self.cdi_spec_dirs or ["/etc/cdi", "/var/run/cdi"]))

    @property
    def shm_size(self) -> int:
        """`default_shm_size` in bytes."""
        return parse_bytes(self.default_shm_size)

    @property
    def cgroup_driver(self) -> str:
        """`cgroupfs` or `systemd`, from exec-opts."""
        for text in self.exec_opts:
            key, _, value = text.partition("=")
            if key == "native.cgroupdriver":
                return value
        return "cgroupfs"

    @property
    def seccomp_profile_json(self) -> str:
        """The profile for new containers: its JSON, `unconfined`, or empty for the default one."""
        if self.seccomp_profile in ("", "builtin"):
            return ""
        if self.seccomp_profile == "unconfined":
            return self.seccomp_profile
        return _read_profile(self.seccomp_profile)

    def runtime(self, name: str) -> RuntimeConfig | None:
        """The runtime called `name`; None if there is none."""
        if name == "runc":
            return RuntimeConfig(path="runc")
        if name == "io.containerd.runc.v2":
            return RuntimeConfig(type=name)
        if name == "crun":
            return self.runtimes.get(name, RuntimeConfig(path="crun"))
        return self.runtimes.get(name)


@cache
def _read_profile(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as exc:
        raise InvalidParameter(f"opening seccomp profile ({path}) failed: {exc.strerror}") from exc


@cache
def directives() -> tuple[Directive, ...]:
    """Every directive, in the order of Config's fields."""
    hints = typing.get_type_hints(Config, include_extras=True)
    found = []
    group = ""
    for field in msgspec.structs.fields(Config):
        option = next(
            (extra for extra in getattr(hints[field.name], "__metadata__", ()) if isinstance(extra, Option)),
            None,
        )
        if option is None:
            continue
        group = option.group or group
        default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        kind = typing.get_args(hints[field.name])[0]
        found.append(Directive(field.name, field.encode_name, kind, default, replace(option, group=group)))
    return tuple(found)


_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def parse_bytes(text: str) -> int:
    """`64MiB`, `64m` or `67108864` in bytes. Raises InvalidParameter."""
    matched = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([bkmgtp]?)(?:i?b)?", text.strip().lower())
    size = float(matched[1]) * _SIZES[matched[2]] if matched is not None else inf
    if size >= 1 << 63:
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(size)
