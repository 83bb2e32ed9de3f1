"""Each field of EndpointSettings: what is asked of a container's place on a network, and what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from engine.asked import create, inspect, run, start
from harness import Client

proves = pytest.mark.proves
SYSCTLS = "com.docker.network.endpoint.sysctls"
SUBNET, SUBNET6 = "10.213.9.0/24", "fd00:213:9::/64"


@pytest.fixture
def network(api: Client) -> Iterator[str]:
    """A network with both kinds of addresses."""
    ipam = {"Config": [{"Subnet": SUBNET}, {"Subnet": SUBNET6}]}
    yield (
        api.post("/networks/create", {"Name": "own", "EnableIPv6": True, "IPAM": ipam}).expect(201).json["Id"]
    )


def on(network: str = "own", host: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """Fields of a container with one endpoint of these settings."""
    return {
        "HostConfig": {"NetworkMode": network, **(host or {})},
        "NetworkingConfig": {"EndpointsConfig": {network: settings}},
    }


@pytest.mark.parametrize(
    ("settings", "script", "wanted"),
    [
        pytest.param(
            {"IPAMConfig": {"IPv4Address": "10.213.9.77"}},
            "ip -4 -o addr show eth0 | awk '{print $4}'",
            "10.213.9.77/24",
            marks=proves("EndpointSettings.IPAMConfig.IPv4Address"),
        ),
        pytest.param(
            {"IPAMConfig": {"IPv6Address": "fd00:213:9::77"}},
            "ip -6 -o addr show eth0 scope global | awk '{print $4}'",
            "fd00:213:9::77/64",
            marks=proves("EndpointSettings.IPAMConfig.IPv6Address"),
        ),
        pytest.param(
            {"MacAddress": "02:00:00:00:00:77"},
            "cat /sys/class/net/eth0/address",
            "02:00:00:00:00:77",
            marks=proves("EndpointSettings.MacAddress"),
        ),
        pytest.param(
            {"IPAMConfig": {"LinkLocalIPs": ["169.254.7.7", "fe80::7"]}},
            "ip -o addr show eth0 | awk '{print $4}' | grep -E '^(169.254|fe80::7)'",
            "169.254.7.7/16\nfe80::7/64",
            marks=proves("EndpointSettings.IPAMConfig.LinkLocalIPs"),
        ),
        pytest.param(
            {"DriverOpts": {SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1"}},
            "cat /proc/sys/net/ipv4/conf/eth0/log_martians",
            "1",
            marks=proves("EndpointSettings.DriverOpts"),
        ),
        ({"DriverOpts": {"com.docker.network.endpoint.ifname": "lan7"}}, "ls /sys/class/net", "lan7\nlo"),
    ],
)
def test_what_is_asked_for(
    api: Client, network: str, settings: dict[str, Any], script: str, wanted: str
) -> None:
    assert run(api, script, on(**settings)) == wanted


@proves("EndpointSettings.Aliases", "EndpointSettings.DNSNames")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"IPAMConfig": {"IPv4Address": "fd00::1"}}, "invalid IPv4 address: fd00::1"),
        ({"IPAMConfig": {"IPv4Address": "0.0.0.0"}}, "invalid IPv4 address: 0.0.0.0"),
        ({"IPAMConfig": {"IPv6Address": "fe80::1%eth0"}}, "invalid IPv6 address: fe80::1%eth0"),
        ({"IPAMConfig": {"LinkLocalIPs": ["x", "::"]}}, "invalid link-local IP address: x"),
        ({"IPAMConfig": {"IPv4Address": "10.9.9.9"}}, "no configured subnet contains IP address 10.9.9.9"),
        ({"MacAddress": "02:00:00:00:00:7g"}, "invalid MAC address 02:00:00:00:00:7g"),
        ({"DriverOpts": {SYSCTLS: "net.ipv4.conf.eth0.x=1"}}, "unrecognised network interface sysctl"),
    ],
)
def test_what_cannot_be_had(api: Client, network: str, settings: dict[str, Any], message: str) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "600"], **on(**settings)}
    refused = api.post("/containers/create", body).expect(400)
    assert refused.message.startswith("invalid config for network own: ") and message in refused.message
    container = api.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]}).expect(201).json["Id"]
    try:
        asked = {"Container": container, "EndpointConfig": settings}
        assert api.post(f"/networks/{network}/connect", asked).expect(400).message == refused.message
    finally:
        api.delete(f"/containers/{container}").expect(204)


def test_names(api: Client, network: str) -> None:
    id = start(api, on(Aliases=["alias"]) | {"Hostname": "host"}, name="named")
    endpoint = inspect(api, id)["NetworkSettings"]["Networks"]["own"]
    assert endpoint["Aliases"] == ["alias"]
    assert endpoint["DNSNames"] == ["named", "alias", id[:12], "host"]
    for name in endpoint["DNSNames"]:
        assert endpoint["IPAddress"] in run(api, f"nslookup -type=a {name} 2>/dev/null", on())


@proves("EndpointSettings.Links")
def test_links_on_networks_of_ones_own(api: Client, network: str) -> None:
    """A name that only the container with the link knows."""
    address = inspect(api, start(api, on(), name="web"))["NetworkSettings"]["Networks"]["own"]["IPAddress"]
    script = "nslookup -type=a db 2>/dev/null | grep -c {}; true"
    assert run(api, script.format(address), on(Links=["web:db"])) == "1"
    assert run(api, script.format(address), on()) == "0"


@proves("EndpointSettings.GwPriority")
@pytest.mark.parametrize(("first", "wanted"), [(0, "10.213.9.1"), (5, "10.213.8.1")])
def test_the_way_out(api: Client, network: str, first: int, wanted: str) -> None:
    api.post("/networks/create", {"Name": "more", "IPAM": {"Config": [{"Subnet": "10.213.8.0/24"}]}}).expect(
        201
    )
    asked = on(GwPriority=1)
    asked["NetworkingConfig"]["EndpointsConfig"]["more"] = {"GwPriority": first}
    assert run(api, "ip route | awk '/^default/ {print $3}'", asked) == wanted


@proves("EndpointSettings.NetworkID", "EndpointSettings.EndpointID", "EndpointSettings.Gateway")
@proves("EndpointSettings.IPAddress", "EndpointSettings.IPPrefixLen", "EndpointSettings.IPv6Gateway")
@proves("EndpointSettings.GlobalIPv6Address", "EndpointSettings.GlobalIPv6PrefixLen")
def test_what_is_told(api: Client, network: str) -> None:
    id = start(api, on())
    found = inspect(api, id)["NetworkSettings"]["Networks"]["own"]
    (listed,) = api.get(f"/networks/{network}").json["Containers"].values()
    assert (found["NetworkID"], found["EndpointID"]) == (network, listed["EndpointID"])
    assert listed["MacAddress"] == found["MacAddress"]
    assert f"{found['IPAddress']}/{found['IPPrefixLen']}" == listed["IPv4Address"]
    assert f"{found['GlobalIPv6Address']}/{found['GlobalIPv6PrefixLen']}" == listed["IPv6Address"]
    assert (found["IPPrefixLen"], found["GlobalIPv6PrefixLen"]) == (24, 64)
    pools = {
        pool["Subnet"]: pool["Gateway"] for pool in api.get(f"/networks/{network}").json["IPAM"]["Config"]
    }
    assert pools == {SUBNET: found["Gateway"], SUBNET6: found["IPv6Gateway"]}
    assert all(ip_network(subnet) for subnet in pools)
    script = "ip route | awk '/^default/ {print $3}'; ip -6 route | awk '/^default/ {print $3}'"
    assert run(api, script, on()).split() == [found["Gateway"], found["IPv6Gateway"]]
    api.post(f"/containers/{id}/stop", t=0).expect(204)
    gone = inspect(api, id)["NetworkSettings"]["Networks"]["own"]
    assert (gone["IPAddress"], gone["EndpointID"], gone["IPPrefixLen"]) == ("", "", 0)


def fetched(api: Client, port: str) -> str:
    """What a server on this machine answers, once it does."""
    script = (
        f"for _ in $(seq 100); do wget -qO- http://127.0.0.1:{port}/ 2>/dev/null && break; sleep 0.1; done"
    )
    return run(api, script, {"HostConfig": {"NetworkMode": "host"}})


@proves("HostConfig.PortBindings")
def test_port_bindings(api: Client) -> None:
    bindings = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    id = start(api, {"Cmd": ["httpd", "-f", "-h", "/www"], "HostConfig": {"PortBindings": bindings}})
    (place,) = inspect(api, id)["NetworkSettings"]["Ports"]["80/tcp"]
    assert place["HostIp"] == "127.0.0.1"
    assert fetched(api, place["HostPort"]) == "Hello from a container."


@proves("HostConfig.PublishAllPorts", "ContainerConfig.ExposedPorts")
def test_exposed_ports(api: Client) -> None:
    asked = {"Cmd": ["httpd", "-f", "-h", "/www"], "ExposedPorts": {"80/tcp": {}, "81/udp": {}}}
    id = start(api, {**asked, "HostConfig": {"PublishAllPorts": True}})
    ports = inspect(api, id)["NetworkSettings"]["Ports"]
    assert set(ports) == {"80/tcp", "81/udp"}
    assert fetched(api, ports["80/tcp"][0]["HostPort"]) == "Hello from a container."
    quiet = inspect(api, start(api, asked))["NetworkSettings"]["Ports"]
    assert quiet == {"80/tcp": None, "81/udp": None}


@proves("HostConfig.Links")
def test_links(api: Client) -> None:
    id = start(api, {"ExposedPorts": {"80/tcp": {}}}, name="linked")
    address = inspect(api, id)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    found = run(
        api, "grep -c alias /etc/hosts; echo $ALIAS_PORT", {"HostConfig": {"Links": ["linked:alias"]}}
    )
    assert found.split() == ["1", f"tcp://{address}:80"]


def test_sysctls_of_eth0_reach_it(api: Client) -> None:
    """Clients before 1.48 set them for the container."""
    asked = {"HostConfig": {"Sysctls": {"net.ipv4.conf.eth0.log_martians": "1"}}}
    assert run(Client(api.socket_path, "1.47"), "cat /proc/sys/net/ipv4/conf/eth0/log_martians", asked) == "1"


def test_endpoints_of_older_clients(api: Client) -> None:
    old = Client(api.socket_path, "1.43")
    two = {"NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {}}}}
    answer = create(old, two).expect(400)
    assert answer.message == "Container cannot be created with multiple network endpoints: a, b"
    asked = on("bridge", MacAddress="02:00:00:00:00:77", GwPriority=3)
    found = inspect(api, create(old, asked).expect(201).json["Id"])["NetworkSettings"]["Networks"]["bridge"]
    assert found["GwPriority"] == 0
    assert run(old, "cat /sys/class/net/eth0/address", asked) != "02:00:00:00:00:77"
