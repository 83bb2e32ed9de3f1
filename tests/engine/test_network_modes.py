"""What --network and its neighbours make of a container's network, files and ports."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Client, DockerCLI, daemon_message


def sh(docker: DockerCLI, *options: str, script: str) -> str:
    return docker.out("run", "--rm", *options, "busybox", "sh", "-c", script)


def refused(docker: DockerCLI, *options: str) -> str:
    done = docker("run", "--rm", *options, "busybox", "true", check=False)
    assert done.returncode == 125, done
    return daemon_message(done)


def refused_by_api(api: Client, host: dict[str, Any], endpoints: dict[str, Any] | None = None) -> str:
    """As `refused`, for what a CLI itself may leave out or refuse."""
    body = {"Image": "busybox", "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints or {}}}
    answer = api.post("/containers/create", body)
    if answer.status == 201:
        answer = api.post(f"/containers/{answer.json['Id']}/start")
    return answer.expect(400, 404, 500).message


def hosts(docker: DockerCLI, *options: str) -> dict[str, list[str]]:
    lines = [line.split() for line in sh(docker, *options, script="cat /etc/hosts").splitlines()]
    return {line[0]: line[1:] for line in lines if line and ":" not in line[0]}


def fetch(address: str, port: int) -> bytes:
    deadline = time.monotonic() + 5
    while True:
        try:
            with socket.create_connection((address, port), 2) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                data = b""
                while chunk := connection.recv(4096):
                    data += chunk
                return data
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def free_ports(count: int = 1) -> Iterator[int]:
    """The first of so many ports in a row that nobody has."""
    for first in range(20000 + time.time_ns() % 10000, 32000):
        probes = []
        try:
            for number in range(first, first + count):
                probes.append(socket.socket())
                probes[-1].bind(("0.0.0.0", number))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        yield first
        return


def test_none_has_loopback_alone(docker: DockerCLI) -> None:
    assert (
        sh(docker, "--network", "none", script="ls /sys/class/net; cat /etc/hosts | wc -l").split()[0] == "lo"
    )
    assert "127.0.0.1" in hosts(docker, "--network", "none")


@pytest.mark.proves("ContainerConfig.Hostname", "ContainerConfig.Domainname")
def test_the_default_bridge(docker: DockerCLI) -> None:
    found = hosts(docker, "--hostname", "box", "--domainname", "example.org")
    own = [names for address, names in found.items() if address != "127.0.0.1"]
    assert own == [["box.example.org", "box"]]
    assert sh(docker, script="ls /sys/class/net").split() == ["eth0", "lo"]


def test_the_network_of_another_container(docker: DockerCLI) -> None:
    docker("run", "-d", "--name", "donor", "--hostname", "box", "busybox", "httpd", "-f", "-h", "/www")
    script = "hostname; wget -qO- http://127.0.0.1/; grep -c box /etc/hosts"
    assert sh(docker, "--network", "container:donor", script=script).split("\n") == [
        "box",
        "Hello from a container.",
        "1",
    ]
    docker("create", "--name", "late", "--network", "container:donor", "busybox", "true")
    id = docker.out("inspect", "-f", "{{.Id}}", "donor")
    docker("stop", "-t", "0", "donor")
    done = docker("start", "late", check=False)
    assert f"cannot join network of a non running container: {id}" in done.stderr
    assert refused(docker, "--network", "container:nosuch") == "No such container: nosuch"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hostname", "x"], "conflicting options: hostname and the network mode"),
        (["-p", "80:80"], "conflicting options: port publishing and the container type network mode"),
        (["--dns", "1.1.1.1"], "conflicting options: dns and the network mode"),
        (["--add-host", "a:1.1.1.1"], "conflicting options: custom host-to-IP mapping and the network mode"),
        (["--expose", "80"], "conflicting options: port exposing and the container type network mode"),
    ],
)
def test_what_a_shared_network_excludes(docker: DockerCLI, options: list[str], message: str) -> None:
    docker("run", "-d", "--name", "donor", "busybox", "sleep", "600")
    assert refused(docker, "--network", "container:donor", *options) == message


def test_links_with_the_hosts_network(docker: DockerCLI, api: Client) -> None:
    docker("run", "-d", "--name", "other", "busybox", "sleep", "600")
    message = (
        "conflicting options: host type networking can't be used with links. "
        "This would result in undefined behavior"
    )
    assert refused_by_api(api, {"NetworkMode": "host", "Links": ["other"]}) == message
    assert (
        refused(docker, "--link", "nosuch") == "could not get container for nosuch: No such container: nosuch"
    )


@pytest.mark.proves("HostConfig.ExtraHosts")
def test_extra_hosts(docker: DockerCLI) -> None:
    gateway = docker.out("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
    found = hosts(docker, "--add-host", "one:192.0.2.1", "--add-host", "up:host-gateway")
    assert found["192.0.2.1"] == ["one"]
    assert found[gateway] == ["up"]


@pytest.mark.proves("HostConfig.Dns", "HostConfig.DnsSearch", "HostConfig.DnsOptions")
def test_name_servers(docker: DockerCLI) -> None:
    options = ("--dns", "192.0.2.53", "--dns-search", "example.org", "--dns-option", "ndots:3")
    lines = sh(docker, *options, script="grep -v '^#' /etc/resolv.conf").splitlines()
    assert [line for line in lines if line] == [
        "nameserver 192.0.2.53",
        "search example.org",
        "options ndots:3",
    ]


@pytest.mark.proves("EndpointSettings.Aliases", "EndpointSettings.IPAMConfig.IPv4Address")
def test_names_on_a_network_of_ones_own(docker: DockerCLI) -> None:
    docker("network", "create", "--subnet", "10.213.7.0/24", "own")
    docker(
        "run", "-d", "--name", "web", "--network", "own", "--network-alias", "alias", "--ip", "10.213.7.77",
        "busybox", "httpd", "-f", "-h", "/www",
    )  # fmt: skip
    for name in ("web", "alias", "10.213.7.77"):
        assert sh(docker, "--network", "own", script=f"wget -qO- http://{name}/") == "Hello from a container."


def test_addresses_on_the_default_bridge_cannot_be_chosen(api: Client) -> None:
    message = "user specified IP address is supported on user defined networks only"
    for name in ("default", "bridge"):
        endpoint = {"IPAMConfig": {"IPv4Address": "172.17.0.99"}}
        assert refused_by_api(api, {"NetworkMode": name}, {name: endpoint}).endswith(message)


@pytest.mark.proves("HostConfig.PortBindings")
def test_published_ports(docker: DockerCLI) -> None:
    with free_ports(3) as first:
        docker(
            "run", "-d", "--name", "web",
            "-p", f"127.0.0.1:{first}:80", "-p", f"{first + 1}-{first + 2}:8001-8002", "-p", "53/udp",
            "busybox", "httpd", "-f", "-h", "/www",
        )  # fmt: skip
        assert fetch("127.0.0.1", first).endswith(b"Hello from a container.\n")
        lines = docker.out("port", "web").splitlines()
        assert f"80/tcp -> 127.0.0.1:{first}" in lines
        assert f"8001/tcp -> 0.0.0.0:{first + 1}" in lines
        assert f"8002/tcp -> 0.0.0.0:{first + 2}" in lines
        udp = docker.out("port", "web", "53/udp").splitlines()[0]
        assert 32768 <= int(udp.rpartition(":")[2]) <= 60999


ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 7))
while True:
    data, client = server.recvfrom(64)
    server.sendto(data, client)
"""


def test_a_host_address_that_is_none_is_not_every_address(api: Client) -> None:
    for text in ("host.example", "127.1", "fe80::1%lo"):
        places = {"80/tcp": [{"HostIp": text, "HostPort": ""}]}
        assert refused_by_api(api, {"PortBindings": places}) == f"invalid IP address: {text}"


def test_udp_is_published(docker: DockerCLI) -> None:
    docker("run", "-d", "--name", "echo", "-p", "127.0.0.1::7/udp", "busybox", "sleep", "600")
    port = int(docker.out("port", "echo", "7/udp").rpartition(":")[2])
    pid = docker.out("inspect", "-f", "{{.State.Pid}}", "echo")
    server = subprocess.Popen(["nsenter", "-n", "-t", pid, sys.executable, "-c", ECHO])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            assert _answers(client, ("127.0.0.1", port))
    finally:
        server.kill()
        server.wait()


def _answers(client: socket.socket, place: tuple[str, int]) -> bool:
    for _ in range(20):
        client.sendto(b"ping", place)
        try:
            return client.recv(16) == b"ping"
        except OSError:
            continue
    return False


@pytest.mark.proves("HostConfig.PublishAllPorts", "ContainerConfig.ExposedPorts")
def test_all_exposed_ports(docker: DockerCLI) -> None:
    docker("run", "-d", "-P", "--name", "web", "--expose", "80", "--expose", "81", "busybox",
           "httpd", "-f", "-h", "/www")  # fmt: skip
    port = int(docker.out("port", "web", "80/tcp").splitlines()[0].rpartition(":")[2])
    assert fetch("127.0.0.1", port).endswith(b"Hello from a container.\n")
    assert docker.out("port", "web", "81/tcp")


def test_exposed_ports_are_shown_as_null(api: Client, docker: DockerCLI) -> None:
    docker("run", "-d", "--name", "quiet", "--expose", "81", "busybox", "sleep", "600")
    assert api.get("/containers/quiet/json").json["NetworkSettings"]["Ports"] == {"81/tcp": None}


@pytest.mark.proves("HostConfig.Links")
def test_links_give_names_and_variables(docker: DockerCLI) -> None:
    exposed = ("--expose", "80", "--expose", "81", "--expose", "5/udp")
    docker("run", "-d", "--name", "db", "-e", "FOO=bar", *exposed, "--hostname", "dbhost", "busybox",
           "httpd", "-f", "-h", "/www")  # fmt: skip
    address = docker.out("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db")
    options = ("--name", "app", "--link", "db:my-db", "--link", "db")
    assert sh(docker, *options, script="wget -qO- http://my-db/") == "Hello from a container."
    # Both lines have the same address: the last one counts here.
    assert hosts(docker, "--link", "db:my-db")[address] == ["my-db", "dbhost", "db"]
    assert hosts(docker, "--link", "db")[address] == ["db", "dbhost"]
    variables = set(sh(docker, *options, script="env | grep ^MY_DB").split())
    prefix = "MY_DB_PORT_80_TCP"
    assert variables == {
        f"MY_DB_PORT=tcp://{address}:80",
        f"{prefix}=tcp://{address}:80",
        f"{prefix}_ADDR={address}",
        f"{prefix}_PORT=80",
        f"{prefix}_PROTO=tcp",
        f"{prefix}_START=tcp://{address}:80",
        f"{prefix}_PORT_START=80",
        f"{prefix}_END=tcp://{address}:81",
        f"{prefix}_PORT_END=81",
        f"MY_DB_PORT_81_TCP=tcp://{address}:81",
        f"MY_DB_PORT_81_TCP_ADDR={address}",
        "MY_DB_PORT_81_TCP_PORT=81",
        "MY_DB_PORT_81_TCP_PROTO=tcp",
        f"MY_DB_PORT_5_UDP=udp://{address}:5",
        f"MY_DB_PORT_5_UDP_ADDR={address}",
        "MY_DB_PORT_5_UDP_PORT=5",
        "MY_DB_PORT_5_UDP_PROTO=udp",
        "MY_DB_NAME=/app/my-db",
        "MY_DB_ENV_FOO=bar",
    }


def test_a_link_to_what_does_not_run(api: Client, docker: DockerCLI) -> None:
    docker("run", "-d", "--name", "db", "busybox", "sleep", "600")
    docker("create", "--name", "app", "--link", "db:alias", "busybox", "true")
    links: Any = api.get("/containers/app/json").json["HostConfig"]["Links"]
    assert links == ["/db:/app/alias"]
    docker("stop", "-t", "0", "db")
    answer = api.post("/containers/app/start").expect(500)
    assert answer.message == "Cannot link to a non running container: /db AS /app/alias"
    docker("start", "db")
    assert docker("start", "-a", "app").returncode == 0


def test_a_linking_container_learns_of_a_new_address(docker: DockerCLI) -> None:
    docker("run", "-d", "--name", "db", "busybox", "sleep", "600")
    docker("run", "-d", "--name", "app", "--link", "db:alias", "busybox", "sleep", "600")
    hosts_path = Path(docker.out("inspect", "-f", "{{.HostsPath}}", "app"))
    first = docker.out("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db")
    assert f"{first}\talias" in hosts_path.read_text()
    docker("stop", "-t", "0", "db")
    # Whether the first free address is given or the next: the old one is not db's again.
    docker("run", "-d", "--name", "usurper", "busybox", "sleep", "600")
    docker("start", "db")
    second = docker.out("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db")
    assert second != first
    assert f"{second}\talias" in hosts_path.read_text()
    assert f"{first}\talias" not in hosts_path.read_text()
