"""Networks by the docker CLI: what a user makes of them, on running and on stopped containers."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client, DockerCLI, Longshored

HTTPD = ("busybox", "httpd", "-f", "-h", "/www")
HELLO = "Hello from a container."


def shown(docker: DockerCLI, what: str, format: str) -> Any:
    return json.loads(docker.out("inspect", "-f", "{{json " + format + "}}", what))


def inside(docker: DockerCLI, name: str, script: str) -> str:
    return docker.out("exec", name, "sh", "-c", script)


def answers(family: socket.AddressFamily, address: str, port: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with socket.socket(family) as client:
            client.settimeout(1)
            try:
                client.connect((address, port))
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                data = b""
                while chunk := client.recv(4096):
                    data += chunk
                return HELLO.encode() in data
            except OSError:
                time.sleep(0.05)
    return False


def test_connect_and_disconnect(docker: DockerCLI) -> None:
    for name in ("one", "two"):
        docker("network", "create", name)
    docker("run", "-d", "--name", "web", "--network", "one", *HTTPD)
    docker("create", "--name", "client", "--network", "two", "busybox", "sleep", "600")
    # To a stopped container, for its next start; then to one that runs.
    docker("network", "connect", "--alias", "me", "one", "client")
    docker("start", "client")
    assert inside(docker, "client", "wget -qO- http://web/") == HELLO
    assert set(shown(docker, "client", ".NetworkSettings.Networks")) == {"one", "two"}
    docker("network", "connect", "--alias", "site", "--link", "client:friend", "two", "web")
    assert "eth1" in inside(docker, "web", "ls /sys/class/net")
    assert "client.two" in inside(docker, "web", "nslookup friend; nslookup client.two")
    docker("network", "disconnect", "one", "client")
    assert inside(docker, "client", "ls /sys/class/net").split() == ["eth0", "lo"] or "eth1" in inside(
        docker, "client", "ls /sys/class/net"
    )
    assert inside(docker, "client", "wget -qO- http://site/") == HELLO
    docker("network", "disconnect", "two", "web")
    assert docker("exec", "client", "nslookup", "site", check=False).returncode != 0
    docker("stop", "-t", "0", "client")
    docker("network", "disconnect", "-f", "two", "client")
    assert shown(docker, "client", ".NetworkSettings.Networks") == {}
    done = docker("network", "disconnect", "two", "client", check=False)
    assert "is not connected to network two" in done.stderr


def test_a_new_name_is_found_at_once(docker: DockerCLI) -> None:
    docker("network", "create", "own")
    docker("run", "-d", "--name", "old", "--network", "own", *HTTPD)
    docker("run", "-d", "--name", "client", "--network", "own", "busybox", "sleep", "600")
    docker("rename", "old", "new")
    assert inside(docker, "client", "wget -qO- http://new/") == HELLO
    assert docker("exec", "client", "nslookup", "old", check=False).returncode != 0
    assert "new" in shown(docker, "new", ".NetworkSettings.Networks.own.DNSNames")


def test_ports_are_published_for_both_ip_versions(docker: DockerCLI) -> None:
    docker("network", "create", "own")
    docker("run", "-d", "--name", "web", "-p", "80", "--network", "own", *HTTPD)
    lines = docker.out("port", "web", "80/tcp").splitlines()
    (port,) = {int(line.rpartition(":")[2]) for line in lines}
    assert lines == [f"0.0.0.0:{port}", f"[::]:{port}"]
    assert answers(socket.AF_INET, "127.0.0.1", port)
    assert answers(socket.AF_INET6, "::1", port)
    # They go where the way out goes, and back.
    docker("network", "create", "first")
    docker("network", "connect", "--gw-priority", "1", "first", "web")
    assert docker.out("port", "web", "80/tcp").splitlines() == lines
    assert answers(socket.AF_INET, "127.0.0.1", port) and answers(socket.AF_INET6, "::1", port)
    gateway = shown(docker, "web", ".NetworkSettings.Networks.first.Gateway")
    assert f"default via {gateway} " in inside(docker, "web", "ip route")
    docker("network", "disconnect", "first", "web")
    assert docker.out("port", "web", "80/tcp").splitlines() == lines
    assert answers(socket.AF_INET, "127.0.0.1", port)


def test_routed_ports_have_no_host_port(docker: DockerCLI, api: Client) -> None:
    option = "com.docker.network.bridge.gateway_mode_ipv4=routed"
    docker("network", "create", "-o", option, "own")
    docker("run", "-d", "--name", "web", "-p", "80", "--network", "own", *HTTPD)
    ports = api.get("/containers/web/json").json["NetworkSettings"]["Ports"]["80/tcp"]
    assert {"HostIp": "0.0.0.0", "HostPort": ""} in ports
    docker("network", "create", "other")
    address = shown(docker, "web", ".NetworkSettings.Networks.own.IPAddress")
    fetch = f"wget -qO- http://{address}/"
    assert docker.out("run", "--rm", "--network", "other", "busybox", "sh", "-c", fetch) == HELLO


def test_settings_that_networks_share(docker: DockerCLI) -> None:
    docker("network", "create", "--config-only", "--subnet", "10.214.9.0/24", "--label", "a=1", "settings")
    docker("network", "create", "--config-from", "settings", "own")
    assert docker.out("run", "--rm", "--network", "own", "busybox", "hostname", "-i") == "10.214.9.2"
    done = docker("run", "--rm", "--network", "settings", "busybox", "true", check=False)
    assert "cannot create endpoint on configuration-only network" in done.stderr
    # A prune leaves settings alone.
    assert docker.out("network", "prune", "-f").split()[-1] == "own"
    assert docker.out("network", "ls", "-q", "-f", "name=settings")


def test_an_endpoint_and_what_it_asks_for(docker: DockerCLI) -> None:
    docker("network", "create", "--ipv6", "--subnet", "10.214.8.0/24", "--subnet", "fd00:214::/64", "own")
    network = (
        "name=own,ip=10.214.8.77,ip6=fd00:214::77,mac-address=02:42:00:00:00:77,alias=me,"
        "driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    )
    script = "ip addr show eth0; cat /proc/sys/net/ipv4/conf/eth0/log_martians; nslookup -type=aaaa me"
    found = docker.out(
        "run", "--rm", "--link-local-ip", "169.254.9.9", "--network", network, "busybox", "sh", "-c", script
    )
    for part in ("10.214.8.77/24", "fd00:214::77/64", "02:42:00:00:00:77", "169.254.9.9/16", "\n1\n"):
        assert part in found
    assert "Address: fd00:214::77" in found


@pytest.fixture(scope="module")
def special(busybox_archive: Path, root: None) -> Iterator[Longshored]:
    """A daemon whose default bridge has IPv6 and keeps its containers apart."""
    daemon = Longshored("--icc=false", "--ipv6", "--fixed-cidr-v6", "fd00:215::/64")
    try:
        daemon.start()
        daemon.load(busybox_archive)
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def other(special: Longshored) -> Iterator[Longshored]:
    yield special
    special.reset()


def test_links_open_what_icc_closes(other: Longshored) -> None:
    docker = other.docker
    docker("run", "-d", "--name", "web", "--expose", "80", *HTTPD)
    address = shown(docker, "web", ".NetworkSettings.IPAddress")
    fetch = ("busybox", "sh", "-c", f"timeout 1 wget -qO- http://{address}/; exit $?")
    assert docker("run", "--rm", *fetch, check=False).returncode != 0
    assert docker.out("run", "--rm", "--link", "web:site", *fetch) == HELLO
    docker("run", "-d", "--name", "linked", "--link", "web:site", "busybox", "sleep", "600")
    docker("run", "-d", "--name", "other", "busybox", "sleep", "600")
    for _ in range(2):
        assert docker.out("exec", "linked", *fetch[1:]) == HELLO
        assert docker("exec", "other", *fetch[1:], check=False).returncode != 0
        other.kill()
        other.start()


def test_the_default_bridge_with_ipv6(other: Longshored) -> None:
    docker = other.docker
    assert shown(docker, "bridge", ".EnableIPv6") is True
    docker("run", "-d", "--name", "web", "-p", "80", *HTTPD)
    assert shown(docker, "web", ".NetworkSettings.GlobalIPv6Address") == "fd00:215::2"
    port = int(docker.out("port", "web", "80/tcp").splitlines()[0].rpartition(":")[2])
    assert answers(socket.AF_INET6, "::1", port)
    assert "fd00:215::2" in inside(docker, "web", "cat /etc/hosts")
