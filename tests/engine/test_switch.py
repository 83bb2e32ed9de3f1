"""A host changes over from dockerd to this engine and back, on the same roots, again and again."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Dockerd, Longshored, StartFailure

SAME = (
    *("Id", "Created", "Path", "Args", "Image", "Name", "RestartCount", "Driver", "Config.Cmd"),
    *("Config.Labels", "Config.Env", "Config.Image", "Config.Volumes", "HostConfig.Binds"),
    *("HostConfig.RestartPolicy", "HostConfig.PortBindings", "HostConfig.Memory", "HostConfig.LogConfig"),
)
NETWORK = ("Id", "Driver", "Internal", "EnableIPv6", "Labels", "Options")
"""Fields of a container and of a network that do not change when another daemon looks at it."""


@pytest.fixture
def host(root: None, machine: object, busybox_archive: Path) -> Iterator[tuple[Dockerd, Longshored]]:
    """Both daemons on the same roots, neither started, each in namespaces of its own as after a reboot."""
    if reason := Dockerd.missing():
        pytest.skip(reason)
    theirs, ours = Dockerd(), Longshored(isolated=True)
    spare = ours.root
    for name in ("root", "data_root", "exec_root", "socket", "log", "client", "docker"):
        setattr(ours, name, getattr(theirs, name))
    ours.flags = ("--cgroup-parent", theirs.cgroup)
    try:
        yield theirs, ours
    finally:
        for daemon in (ours, theirs):
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.stop()
        theirs.destroy()
        shutil.rmtree(spare)


def test_both_ways_twice(host: tuple[Dockerd, Longshored], busybox_archive: Path) -> None:
    first = host[0]
    first.start()
    first.load(busybox_archive)
    for round in range(2):
        for made_by, taken_by in (host, host[::-1]):
            assert made_by.answers()
            prefix = f"{made_by.kind[0]}{round}"
            make(made_by, prefix)
            before = look(made_by)
            assert f"{prefix}-log" in before["containers"]
            made_by.stop()
            taken_by.start()
            assert look(taken_by) == before
            use(taken_by, prefix)
    first.stop()


def test_what_one_removes_the_other_does_not_bring_back(
    host: tuple[Dockerd, Longshored], busybox_archive: Path
) -> None:
    theirs, ours = host
    ours.start()
    ours.load(busybox_archive)
    make(ours, "o")
    ours.stop()
    theirs.start()
    clear(theirs, "o")
    make(theirs, "d")
    theirs.stop()
    ours.start()
    assert not [name for part in look(ours).values() for name in part if str(name).startswith("o")]
    clear(ours, "d")
    ours.stop()
    theirs.start()
    assert not [name for part in look(theirs).values() for name in part if str(name).startswith(("o", "d"))]
    theirs.stop()


def test_never_two_daemons_at_once(host: tuple[Dockerd, Longshored]) -> None:
    theirs, ours = host
    theirs.start()
    ours.socket = theirs.root / "other.sock"
    with pytest.raises(StartFailure, match=r"another daemon has .*metadata\.db open"):
        ours.start()
    theirs.stop()
    ours.start()
    for path in ("volumes/metadata.db", "network/files/local-kv.db"):  # as dockerd locks them
        with (ours.data_root / path).open("rb") as database, pytest.raises(BlockingIOError):
            fcntl.flock(database, fcntl.LOCK_EX | fcntl.LOCK_NB)
    ours.stop()


def test_databases_that_cannot_be_read_are_left_alone(host: tuple[Dockerd, Longshored]) -> None:
    ours = host[1]
    broken = {}
    for path in ("volumes/metadata.db", "network/files/local-kv.db"):
        file = ours.data_root / path
        file.parent.mkdir(parents=True)
        file.write_bytes(os.urandom(40000))
        broken[file] = file.read_bytes()
    ours.start()
    ours.docker.out("volume", "create", "v1")
    ours.docker.out("network", "create", "n1")
    ours.restart()
    assert ours.docker.out("volume", "ls", "-q").split() == ["v1"]
    assert "n1" in ours.docker.out("network", "ls", "--format", "{{.Name}}").split()
    ours.docker.out("network", "rm", "n1")
    ours.stop()
    assert {file: file.read_bytes() for file in broken} == broken


def make(daemon: Daemon, prefix: str) -> None:
    """One of everything, named with the prefix."""
    docker, number = daemon.docker, sum(prefix.encode()) % 97
    docker.out("network", "create", "--label", "a=<b>", f"{prefix}-net")
    subnet = ("--subnet", f"10.{number}.0.0/24", "--ip-range", f"10.{number}.0.128/25")
    gateway = ("--gateway", f"10.{number}.0.3", "--aux-address", f"x=10.{number}.0.7")
    options = ("--opt", "com.docker.network.bridge.enable_icc=false", "--internal")
    docker.out("network", "create", *subnet, *gateway, *options, f"{prefix}-given")
    docker.out("network", "create", "--ipv6", "--subnet", f"fd00:{number}::/64", f"{prefix}-six")
    docker.out("volume", "create", "--label", "l=1", f"{prefix}-vol")
    tmpfs = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m")
    docker.out("volume", "create", *tmpfs, f"{prefix}-tmpfs")
    always = ("--network", f"{prefix}-net", "--restart", "always", "-p", f"127.0.0.1:{8000 + number}:80")
    mounts = ("-v", f"{prefix}-vol:/v", "-v", "/anonymous", "-e", "A=b", "--label", "x=y", "--memory", "64m")
    docker.out(
        *("run", "-d", "--name", f"{prefix}-up", *always, *mounts),
        *("busybox", "sh", "-c", "echo $(hostname) >> /v/starts; trap exit TERM; sleep 1000 & wait"),
    )
    given = ("--network", f"{prefix}-given", "--ip", f"10.{number}.0.200")
    docker.out("create", "--name", f"{prefix}-never", *given, "busybox", "ip", "addr")
    docker.out("run", "--name", f"{prefix}-log", "busybox", "echo", prefix)
    docker.out("run", "--name", f"{prefix}-tmp", "-v", f"{prefix}-tmpfs:/t", "busybox", "mount")
    script = "echo x > /kept; rm /www/index.html; chown 5:6 /home"
    docker.out("run", "--name", f"{prefix}-changed", "--network=none", "busybox", "sh", "-c", script)
    docker.out("commit", f"{prefix}-changed", f"{prefix}-image:1")


def look(daemon: Daemon) -> dict[str, Any]:
    """What the daemon knows, as far as it does not depend on which one it is."""
    api, seen = daemon.client, dict[str, Any](containers={})
    images = api.get("/images/json").json
    seen["images"] = {tag: image["Id"] for image in images for tag in image["RepoTags"]}
    for each in api.get("/containers/json", all=1).json:
        container = api.get(f"/containers/{each['Id']}/json").json
        seen["containers"][container["Name"][1:]] = container["Id"]
        seen[container["Name"]] = {field: dig(container, field) for field in SAME} | mounts(container)
    seen["volumes"] = {
        volume["Name"]: (volume["Labels"] or {}, volume["Options"] or {}, volume["Mountpoint"])
        for volume in api.get("/volumes").json["Volumes"]
    }
    seen["networks"] = {
        each["Name"]: (
            [config["Subnet"] for config in each["IPAM"]["Config"]],
            *(each[key] for key in NETWORK),
        )
        for each in api.get("/networks").json
        if each["Name"] != "bridge"  # whose id dockerd changes at each start
    }
    return seen


def use(daemon: Daemon, prefix: str) -> None:
    """Everything starts, with its data."""
    docker = daemon.docker
    assert docker.out("logs", f"{prefix}-log").strip() == prefix
    docker.out("start", "-a", f"{prefix}-log")
    assert docker.out("logs", f"{prefix}-log").split() == [prefix, prefix]
    up = json.loads(docker.out("inspect", f"{prefix}-up"))[0]
    assert up["State"]["Running"]  # by its restart policy
    starts = docker.out("exec", f"{prefix}-up", "cat", "/v/starts").split()
    assert starts == [up["Config"]["Hostname"]] * 2
    docker.out("network", "connect", f"{prefix}-six", f"{prefix}-up")
    docker.out("exec", f"{prefix}-up", "nslookup", f"{prefix}-up", "127.0.0.11")
    assert "/24" in docker.out("start", "-a", f"{prefix}-never")
    assert "tmpfs on /t type tmpfs" in docker.out("start", "-a", f"{prefix}-tmp")
    docker.out("start", f"{prefix}-changed")
    changes = docker.out("diff", f"{prefix}-changed").splitlines()
    assert {"A /kept", "D /www/index.html", "C /home"} <= set(changes)
    assert docker.out("run", "--rm", f"{prefix}-image:1", "cat", "/kept") == "x"
    docker.out("network", "disconnect", f"{prefix}-six", f"{prefix}-up")


def clear(daemon: Daemon, prefix: str) -> None:
    """Remove what `make` made."""
    docker = daemon.docker
    names = docker.out("ps", "-a", "--format", "{{.Names}}").split()
    docker.out("rm", "-fv", *(name for name in names if name.startswith(prefix)))
    docker.out("rmi", f"{prefix}-image:1")
    docker.out("volume", "rm", f"{prefix}-vol", f"{prefix}-tmpfs")
    docker.out("network", "rm", f"{prefix}-net", f"{prefix}-given", f"{prefix}-six")


def dig(value: Any, path: str) -> Any:
    """`a.b` of nested dictionaries; empty is as good as null."""
    for key in path.split("."):
        value = value[key]
    return value or None


def mounts(container: dict[str, Any]) -> dict[str, Any]:
    """Where a container's mounts come from."""
    return {"mounts": sorted((each["Destination"], each["Source"]) for each in container["Mounts"])}
