"""Network plug-ins: one life of a network with dockerd and with us, and what each asks of the plug-in."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Dockerd, Longshored
from harness.plugin import SOCKETS
from network.cabling import Cabling, Served

LATER = {"com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6", "com.docker.network.portmap"}
"""Options that versions of dockerd differ in."""


def life(daemon: Daemon, root: Path, archive: Path) -> tuple[list[str], list[Any]]:
    """What the client saw, and what the plug-in was asked."""
    daemon.start()
    daemon.load(archive)
    plugin = Cabling("nsenter", "--net", "-t", str(daemon.pid))
    served = Served(root / "plugins" / "cabling.sock", plugin)
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
        return seen, [(method, shape(arguments)) for method, arguments in plugin.calls]
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
    return value if isinstance(value, str) and value.startswith("10.90.") else type(value).__name__


def test_both_ask_the_same(root: None, machine: object, busybox_archive: Path, tmp_path: Path) -> None:
    if reason := Dockerd.missing():
        pytest.skip(reason)
    theirs = life(Dockerd(), tmp_path / "theirs", busybox_archive)
    ours = life(Longshored(isolated=True), tmp_path / "ours", busybox_archive)
    assert ours[0] == theirs[0]
    begun = ("CreateNetwork", "CreateEndpoint", "Join", "Leave", "DeleteEndpoint", "DeleteNetwork")
    for method in begun:
        asked = [[arguments for name, arguments in side[1] if name == method] for side in (ours, theirs)]
        assert asked[0] == asked[1], method
