"""Network plug-ins: one life of a network with dockerd and with us, and what each asks of the plug-in."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Dockerd, Longshored
from harness.plugin import SOCKETS
from network.addressing import Addressing
from network.cabling import Cabling, Served

LATER = {"com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"}
"""Options that versions of dockerd differ in."""


def life(daemon: Daemon, root: Path, archive: Path) -> tuple[list[str], list[Any]]:
    """What the client saw, and what the plug-ins were asked."""
    daemon.start()
    daemon.load(archive)
    plugin = Cabling("nsenter", "--net", "-t", str(daemon.pid))
    addressing = Addressing("10.91.0.0/24", RequiresMACAddress=True)
    served = Served(root / "plugins" / "cabling.sock", plugin, addressing)
    try:
        SOCKETS.mkdir(parents=True, exist_ok=True)
        inside = ["nsenter", "--mount", "-t", str(daemon.pid)]
        subprocess.run([*inside, "mount", "--bind", str(served.socket.parent), str(SOCKETS)], check=True)
        docker, seen = daemon.docker, []
        docker("network", "create", "-d", "cabling", "--subnet", "10.90.0.0/24", "-o", "a=b", "lan")
        docker("run", "-d", "--name", "web", "--network", "lan", "busybox", "httpd", "-f", "-h", "/www")
        script = "wget -qO- http://web/; ip route; ip link show lan0 | grep -c 02:00:00:00:0c:ab"
        seen.append(docker.out("run", "--rm", "--network", "lan", "busybox", "sh", "-c", script))
        docker("run", "-d", "--name", "late", "busybox", "sleep", "600")
        docker("network", "connect", "--ip", "10.90.0.77", "lan", "late")
        seen.append(docker.out("exec", "late", "ls", "/sys/class/net"))
        docker("network", "disconnect", "lan", "late")
        seen.append(docker.out("exec", "late", "ls", "/sys/class/net"))
        plugin.failing = "CreateEndpoint"
        failed = docker("network", "connect", "lan", "late", check=False)
        seen.append(failed.stderr.replace("Error response from daemon: ", ""))
        plugin.failing = ""
        docker("rm", "-f", "web", "late")
        docker("network", "rm", "lan")
        # Addresses of the plug-in's own, no gateway, and words of its own.
        plugin.joined, aux = {}, ["--aux-address", "x=10.91.0.9"]
        served.failure_status = 200
        made = ["--ipam-driver", "cabling", "--ipam-opt", "a=b", "--gateway", "10.91.0.1"]
        docker("network", "create", "-d", "cabling", *made, "--subnet", "10.91.0.0/24", *aux, "out")
        seen.append(docker.out("network", "inspect", "-f", "{{json .IPAM}}", "out"))
        published = ["-p", "18080:80", "-p", "18081-18082:81-82/udp", "--expose", "77"]
        docker("run", "-d", "--name", "web", "--network", "out", *published, "busybox", "sleep", "600")
        seen.append(
            docker.out("exec", "web", "sh", "-c", "ip route; ls /sys/class/net; cat /etc/hosts | wc -l")
        )
        ports = docker.out("inspect", "-f", "{{json .NetworkSettings.Ports}}", "web")
        seen.append(json.loads(ports)["80/tcp"])
        seen.append(docker.out("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"))
        docker("rm", "-f", "web")
        for method in ("CreateEndpoint", "Join"):
            plugin.failing = method
            failed = docker(
                "run", "--rm", "--name", "web", "--network", "out", "busybox", "true", check=False
            )
            seen.append(failed.stderr.replace("docker: Error response from daemon: ", ""))
        plugin.failing = ""
        addressing.failing = {"RequestAddress": 0}
        failed = docker("run", "--rm", "--name", "web", "--network", "out", "busybox", "true", check=False)
        seen.append(failed.stderr)
        addressing.failing = {}
        docker("network", "rm", "out")
        for driver in ("bridge", "macvlan"):
            failed = docker("network", "create", "--ipam-driver", "null", "-d", driver, "none1", check=False)
            seen.append(failed.stderr)
        return seen, [(method, shape(arguments)) for method, arguments in [*plugin.calls, *addressing.calls]]
    finally:
        served.close()
        daemon.destroy()
        daemon.sweep()


def shape(value: Any) -> Any:
    """The keys at any depth, and texts that are the same for both."""
    if isinstance(value, dict):
        shapes = {key: shape(item) for key, item in value.items() if key not in LATER}
        return {key: found for key, found in shapes.items() if found}
    if isinstance(value, list):
        return [shape(item) for item in value]
    if value in ("", None):
        return None
    return value if isinstance(value, str) and value.startswith("10.9") else type(value).__name__


def test_both_ask_the_same(root: None, machine: object, busybox_archive: Path, tmp_path: Path) -> None:
    if reason := Dockerd.missing():
        pytest.skip(reason)
    theirs = life(Dockerd(), tmp_path / "theirs", busybox_archive)
    ours = life(Longshored(isolated=True), tmp_path / "ours", busybox_archive)
    assert ours[0] == theirs[0]
    begun = {method for method, _ in ours[1]}
    assert begun == {method for method, _ in theirs[1]} - {"EndpointOperInfo"}
    for method in begun - {"GetCapabilities", "GetDefaultAddressSpaces"}:
        asked = [[arguments for name, arguments in side[1] if name == method] for side in (ours, theirs)]
        assert asked[0] == asked[1], method
