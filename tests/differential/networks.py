"""Networks and volumes."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from differential.compare import Case, Request, case, request

VOLUME = (request("POST /volumes/create", {"Name": "v1", "Labels": {"a": "1"}}),)
BOX = (request("POST /containers/create?name=box", {"Image": "busybox", "Cmd": ["sleep", "1000"]}),)
RUNNING = (*BOX, request("POST /containers/box/start"))


def network(name: str = "net1", **body: Any) -> tuple[Request, ...]:
    """A bridge network."""
    return (request("POST /networks/create", {"Name": name, "CheckDuplicate": True, **body}),)


def subnet(**pool: Any) -> dict[str, Any]:
    return {"IPAM": {"Driver": "default", "Config": [pool]}}


def new(name: str, **body: Any) -> Case:
    """A network that is created, or refused."""
    options = {
        key: body.pop(key)
        for key in ("given", "status_only", "newer", "sooner", "lacking", "same")
        if key in body
    }
    return case(f"network create: {name}", "POST /networks/create", {"Name": "net1", **body}, **options)


def filters(**values: list[str]) -> str:
    return "filters=" + quote(json.dumps(values))


NO_PLUGIN = "could not find plugin nope in v1 plugin registry: plugin not found"
CONNECT = "POST /networks/net1/connect"
DISCONNECT = "POST /networks/net1/disconnect"
INSPECT = "GET /networks/net1"
DESCRIBED = (
    "Name",
    "Driver",
    "Scope",
    "EnableIPv6",
    "Internal",
    "Attachable",
    "Ingress",
    "IPAM.Driver",
    "Labels",
)
SETTINGS = network(
    "conf",
    ConfigOnly=True,
    **subnet(Subnet="10.99.8.0/24"),
    Labels={"a": "1"},
    Options={"com.docker.network.driver.mtu": "1400"},
)
FIXED = {"Subnet": "10.99.7.0/24", "Gateway": "10.99.7.1"}

CASES: list[Case] = [
    case("network list", "GET /networks?" + filters(name=["host"]), same=("*.Name", "*.Driver", "*.Scope")),
    case("network list: by driver", "GET /networks?" + filters(driver=["null"]), same=("*.Name",)),
    case(
        "network list: custom", "GET /networks?" + filters(type=["custom"]), given=network(), same=("*.Name",)
    ),
    case("network list: no match", "GET /networks?" + filters(name=["nope"]), same=("",)),
    case("network list: unknown filter", "GET /networks?" + filters(nope=["x"])),
    case("network list: type that is none", "GET /networks?" + filters(type=["nope"])),
    case("network list: bad filters", "GET /networks?filters=nope", newer="invalid filter"),
    case("network list: scope", "GET /networks?" + filters(scope=["local"]), status_only=True),
    case("network inspect: bridge", "GET /networks/bridge", same=DESCRIBED),
    case("network inspect: host", "GET /networks/host", same=(*DESCRIBED, "IPAM", "Options", "Containers")),
    case("network inspect: none", "GET /networks/none", same=(*DESCRIBED, "IPAM", "Options", "Containers")),
    case("network inspect: missing", "GET /networks/nope"),
    case("network inspect: own", INSPECT, given=network(), same=DESCRIBED),
    case("network inspect: subnet", INSPECT, given=network(**subnet(**FIXED)), same=(*DESCRIBED, "IPAM")),
    case("network inspect: internal", INSPECT, given=network(Internal=True), same=DESCRIBED),
    case(
        "network inspect: options and labels",
        INSPECT,
        same=(*DESCRIBED, "Options"),
        given=network(Options={"com.docker.network.bridge.name": "lshdiff0"}, Labels={"a": "1"}),
    ),
    case(
        "network inspect: with a container",
        INSPECT,
        same=("Containers.*.Name",),
        given=(*network(), *RUNNING, request(CONNECT, {"Container": "box"})),
    ),
    new("plain"),
    new("no name", Name="", newer="invalid network name: name is empty"),
    new("blank name", Name=" ", status_only=True),
    new("a predefined name", Name="host"),
    new("bridge", Name="bridge"),
    new("a taken name", CheckDuplicate=True, given=network()),
    new("a driver that is none", Driver="nope", newer=NO_PLUGIN),
    new("host driver", Driver="host"),
    new("null driver", Driver="null"),
    new("an address manager that is none", IPAM={"Driver": "nope"}, newer=NO_PLUGIN),
    new(
        "a subnet that is none",
        **subnet(Subnet="nope"),
        newer="invalid network config:\ninvalid subnet nope: invalid CIDR block notation",
    ),
    new(
        "a subnet with host bits",
        **subnet(Subnet="10.99.7.1/24"),
        newer="invalid network config:\ninvalid subnet 10.99.7.1/24: it should be 10.99.7.0/24",
    ),
    new(
        "a range outside the subnet",
        **subnet(Subnet="10.99.7.0/24", IPRange="10.98.0.0/24"),
        newer=(
            "invalid network config:\ninvalid ip-range 10.98.0.0/24: "
            "parent subnet 10.99.7.0/24 doesn't contain ip-range"
        ),
    ),
    new(
        "a gateway outside the subnet", **subnet(Subnet="10.99.7.0/24", Gateway="10.98.0.1"), status_only=True
    ),
    new(
        "an overlapping subnet",
        **subnet(**FIXED),
        given=network("net0", **subnet(**FIXED)),
        newer="invalid pool request: Pool overlaps with other one on this address space",
    ),
    new("an option that is none", Options={"com.docker.network.bridge.enable_icc": "nope"}),
    new("a size that is none", Options={"com.docker.network.driver.mtu": "nope"}),
    new("config only", ConfigOnly=True, same=("Warning",)),
    new("config only, internal", ConfigOnly=True, Internal=True),
    new("config only from another", ConfigOnly=True, ConfigFrom={"Network": "conf"}, given=SETTINGS),
    new("config from one that is none", ConfigFrom={"Network": "net0"}, given=network("net0")),
    new("config from another, and more", ConfigFrom={"Network": "conf"}, Labels={"b": "2"}, given=SETTINGS),
    case(
        "network inspect: config only",
        "GET /networks/conf",
        given=SETTINGS,
        same=("Driver", "ConfigOnly", "IPAM", "Options", "Labels"),
    ),
    case(
        "network inspect: config from",
        INSPECT,
        given=(*SETTINGS, *network(ConfigFrom={"Network": "conf"})),
        same=(*DESCRIBED, "ConfigOnly", "ConfigFrom", "IPAM.Config.*.Subnet", "Options"),
    ),
    case(
        "network remove: config that is used",
        "DELETE /networks/conf",
        given=(*SETTINGS, *network(ConfigFrom={"Network": "conf"})),
    ),
    case("network prune: config only", "POST /networks/prune", given=SETTINGS, same=("NetworksDeleted",)),
    case(
        "network connect: config only",
        "POST /networks/conf/connect",
        {"Container": "box"},
        given=(*SETTINGS, *RUNNING),
    ),
    new("macvlan mode that is none", Driver="macvlan", Options={"parent": "lo", "macvlan_mode": "nope"}),
    new("macvlan on loopback", Driver="macvlan", Options={"parent": "lo"}),
    new("macvlan on nothing", Driver="macvlan", Options={"parent": "nosuch0"}),
    new("macvlan on a vlan that is none", Driver="macvlan", Options={"parent": "lo.5000"}),
    new("macvlan on a vlan of nothing", Driver="macvlan", Options={"parent": "nosuch0.5"}, status_only=True),
    new("two subnets", IPAM={"Config": [{"Subnet": "10.1.0.0/24"}, {"Subnet": "10.2.0.0/24"}]}),
    new("a flag that is none", Options={"com.docker.network.bridge.inhibit_ipv4": "nope"}, status_only=True),
    new("an address that is none", Options={"com.docker.network.bridge.host_binding_ipv4": "nope"}),
    case("network inspect: scope", "GET /networks/bridge?scope=local", same=("Name",)),
    case("network inspect: another scope", "GET /networks/bridge?scope=swarm"),
    new("config from a missing network", ConfigFrom={"Network": "nope"}, status_only=True),
    new("ingress", Ingress=True, status_only=True),
    new("swarm scope", Scope="swarm", status_only=True),
    case("network remove", "DELETE /networks/net1", given=network()),
    case("network remove: missing", "DELETE /networks/nope"),
    case("network remove: bridge", "DELETE /networks/bridge"),
    case("network remove: host", "DELETE /networks/host"),
    case(
        "network remove: in use",
        "DELETE /networks/net1",
        given=(*network(), *RUNNING, request(CONNECT, {"Container": "box"})),
        newer=(
            f'error while removing network: network net1 has active endpoints (name:"box" id:"{"0" * 12}")'
        ),
    ),
    case("network prune: nothing", "POST /networks/prune", status_only=True),
    case("network prune: unknown filter", "POST /networks/prune?" + filters(nope=["x"])),
    case(
        "network connect: missing network",
        "POST /networks/nope/connect",
        {"Container": "box"},
        given=BOX,
        sooner="network nope not found",
    ),
    case("network connect: missing container", CONNECT, {"Container": "nope"}, given=network()),
    case("network connect: created only", CONNECT, {"Container": "box"}, given=(*network(), *BOX)),
    case("network connect: runs", CONNECT, {"Container": "box"}, given=(*network(), *RUNNING)),
    case(
        "network connect: twice",
        CONNECT,
        {"Container": "box"},
        given=(*network(), *RUNNING, request(CONNECT, {"Container": "box"})),
    ),
    case(
        "network connect: host",
        "POST /networks/host/connect",
        {"Container": "box"},
        given=RUNNING,
        newer="cannot connect container to host network - container must be created in host network mode",
    ),
    case(
        "network connect: address without a subnet",
        CONNECT,
        {"Container": "box", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.99.7.9"}}},
        given=(*network(), *RUNNING),
        newer=(
            "invalid config for network net1: invalid endpoint settings:\nuser specified IP address is "
            "supported only when connecting to networks with user configured subnets"
        ),
    ),
    case(
        "network connect: address",
        CONNECT,
        {"Container": "box", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.99.7.9"}}},
        given=(*network(**subnet(**FIXED)), *RUNNING),
    ),
    case(
        "network connect: an address on the default bridge",
        "POST /networks/bridge/connect",
        {"Container": "box", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "172.17.0.99"}}},
        given=(
            *network(),
            request(
                "POST /containers/create?name=box",
                {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "net1"}},
            ),
            request("POST /containers/box/start"),
        ),
        newer=(
            "invalid config for network bridge: invalid endpoint settings:\nuser specified IP address is "
            "supported on user defined networks only"
        ),
    ),
    case(
        "network connect: an address elsewhere",
        CONNECT,
        {"Container": "box", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.98.7.9"}}},
        given=(*network(**subnet(**FIXED)), *BOX),
        newer=(
            "invalid config for network net1: invalid endpoint settings:\n"
            "no configured subnet contains IP address 10.98.7.9"
        ),
    ),
    case("network disconnect: not connected", DISCONNECT, {"Container": "box"}, given=(*network(), *RUNNING)),
    case("network disconnect: missing container", DISCONNECT, {"Container": "nope"}, given=network()),
    case(
        "network disconnect",
        DISCONNECT,
        {"Container": "box"},
        given=(*network(), *RUNNING, request(CONNECT, {"Container": "box"})),
    ),
    case("volume list: empty", "GET /volumes", same=("",)),
    case(
        "volume list", "GET /volumes", given=VOLUME, same=("Volumes.*.Name", "Volumes.*.Labels", "Warnings")
    ),
    case(
        "volume list: by name", "GET /volumes?" + filters(name=["v"]), given=VOLUME, same=("Volumes.*.Name",)
    ),
    case("volume list: by label", "GET /volumes?" + filters(label=["a=2"]), given=VOLUME, same=("",)),
    case("volume list: dangling", "GET /volumes?" + filters(dangling=["true"]), given=VOLUME),
    case("volume list: unknown filter", "GET /volumes?" + filters(nope=["x"])),
    case(
        "volume create", "POST /volumes/create", {"Name": "v1"}, same=("Name", "Driver", "Scope", "Options")
    ),
    case(
        "volume create: twice", "POST /volumes/create", {"Name": "v1"}, given=VOLUME, same=("Name", "Labels")
    ),
    case(
        "volume create: nameless",
        "POST /volumes/create",
        {},
        same=("Driver", "Scope", "Options"),
        but={"Labels": "newer versions label nameless volumes"},
    ),
    case("volume create: name that is none", "POST /volumes/create", {"Name": "a!b"}),
    case("volume create: name of one letter", "POST /volumes/create", {"Name": "a"}),
    case("volume create: driver that is none", "POST /volumes/create", {"Name": "v1", "Driver": "nope"}),
    case(
        "volume create: option that is none",
        "POST /volumes/create",
        {"Name": "v1", "DriverOpts": {"nope": "1"}},
    ),
    case(
        "volume create: type without a device",
        "POST /volumes/create",
        {"Name": "v1", "DriverOpts": {"type": "tmpfs"}},
    ),
    case(
        "volume create: tmpfs",
        "POST /volumes/create",
        {"Name": "v1", "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}},
        same=("Options",),
    ),
    case("volume inspect", "GET /volumes/v1", given=VOLUME, same=("Name", "Driver", "Labels", "Scope")),
    case("volume inspect: missing", "GET /volumes/nope"),
    case("volume remove", "DELETE /volumes/v1", given=VOLUME),
    case("volume remove: missing", "DELETE /volumes/nope"),
    case("volume remove: missing, forced", "DELETE /volumes/nope?force=1"),
    case(
        "volume remove: in use",
        "DELETE /volumes/v1",
        given=(
            request(
                "POST /containers/create?name=box", {"Image": "busybox", "HostConfig": {"Binds": ["v1:/v"]}}
            ),
        ),
    ),
    case("volume prune: nothing", "POST /volumes/prune", same=("",)),
    case("volume prune", "POST /volumes/prune", given=VOLUME, same=("VolumesDeleted",)),
    case("volume prune: unknown filter", "POST /volumes/prune?" + filters(nope=["x"])),
]
