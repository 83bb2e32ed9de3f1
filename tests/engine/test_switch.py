"""A host changes over from dockerd to this engine and back, on the same roots, again and again."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Dockerd, Longshored, StartFailure
from harness.daemon import Namespaces
from harness.patience import PATIENCE

SAME = (
    *("Id", "Created", "Path", "Args", "Image", "Name", "RestartCount", "Driver", "Config.Cmd"),
    *("Config.Labels", "Config.Env", "Config.Image", "Config.Volumes", "HostConfig.Binds"),
    *("HostConfig.RestartPolicy", "HostConfig.PortBindings", "HostConfig.Memory", "HostConfig.LogConfig"),
)
KEPT = ("Pid", "StartedAt", "Status", "Running")
NETWORK = ("Id", "Driver", "Internal", "EnableIPv6", "Labels", "Options")
"""Fields of a container, of its state and of a network that do not change when another daemon looks at it."""


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


@pytest.fixture
def machine_of_both(host: tuple[Dockerd, Longshored]) -> Iterator[tuple[Dockerd, Longshored]]:
    """Both in namespaces that outlive them: what one leaves running the other finds."""
    theirs, ours = host
    namespaces = theirs.namespaces = ours.namespaces = Namespaces()
    try:
        yield host
    finally:
        for daemon in host:
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.stop()
        namespaces.close()


@pytest.mark.parametrize(
    ("first", "crash"),
    [(0, True), (1, True), (1, False)],
    ids=["dockerd-killed", "longshored-killed", "longshored-stopped"],
)
def test_what_runs_changes_over(
    machine_of_both: tuple[Dockerd, Longshored], busybox_archive: Path, first: int, crash: bool
) -> None:
    """With `live-restore`: nothing stops, nothing is lost, and everything can be managed; there and back."""
    made_by, taken_by = machine_of_both[first], machine_of_both[1 - first]
    for each in machine_of_both:
        each.flags = (*each.flags, "--live-restore")
    made_by.start()
    made_by.load(busybox_archive)
    docker = made_by.docker
    docker.out("network", "create", "n1")
    docker.out("network", "create", "n2")
    docker.out("volume", "create", "v1")
    script = "mkdir /w; echo hi > /w/i; httpd -p 80 -h /w; i=0; while :; do echo $((i+=1)); sleep 0.1; done"
    published = ("-p", "8099:80", "-v", "v1:/v", "--restart", "always", "--log-opt", "max-size=10m")
    docker.out("run", "-d", "--name", "web", "--network", "n1", *published, "busybox", "sh", "-c", script)
    docker.out("run", "-di", "--name", "cat", "--network", "n1", "busybox", "sh", "-c", "cat; sleep 1000")
    before = json.loads(docker.out("inspect", "web", "cat"))
    for daemon, next in ((made_by, taken_by), (taken_by, made_by)):
        if crash and daemon.kind == "longshored":
            time.sleep(2 * PATIENCE)  # dockerd's database is written a second after a change
        daemon.kill() if crash else daemon.stop()
        next.start()
        now = json.loads(docker.out("inspect", "web", "cat"))
        for old, new in zip(before, now, strict=True):
            assert [new["State"][key] for key in KEPT] == [old["State"][key] for key in KEPT]
            assert new["RestartCount"] == 0
            for name, endpoint in old["NetworkSettings"]["Networks"].items():
                assert new["NetworkSettings"]["Networks"][name]["IPAddress"] == endpoint["IPAddress"]
        manage(next)
    # No line is missing or there twice: each daemon has gone on where the other stopped.
    lines = [int(line) for line in docker.out("logs", "web").split()]
    assert lines == list(range(1, len(lines) + 1))
    assert docker.out("logs", "cat").split() == [taken_by.kind, made_by.kind]
    docker.out("rm", "-f", "web", "cat")
    docker.out("network", "rm", "n1", "n2")
    made_by.stop()


def test_a_crash_is_no_obstacle(machine_of_both: tuple[Dockerd, Longshored], busybox_archive: Path) -> None:
    """Without `live-restore` dockerd ends what runs, and starts it by its policy; this engine lets it run."""
    theirs, ours = machine_of_both
    docker, sleep = ours.docker, ("busybox", "sleep", "1000")
    ours.start()
    ours.load(busybox_archive)
    docker.out("run", "-d", "--name", "always", "--stop-timeout", "1", "--restart", "always", *sleep)
    docker.out("run", "-d", "--name", "once", "--stop-timeout", "1", *sleep)
    pids = ("inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "always", "once")
    ours.kill()
    theirs.start()
    running, other = docker.out(*pids).splitlines()
    assert running.startswith("running")
    assert other == "exited 0"
    docker.out("start", "once")
    before = docker.out(*pids)
    theirs.kill()
    ours.start()
    assert docker.out(*pids) == before
    docker.out("exec", "always", "true")
    docker.out("rm", "-f", "always", "once")
    ours.stop()


def manage(daemon: Daemon) -> None:
    """What runs is reached, written to, moved between networks, and nobody is given what is its own."""
    docker = daemon.docker
    lines = len(docker.out("logs", "web").split())
    assert docker.out("exec", "web", "wget", "-qO-", "127.0.0.1:80/i") == "hi"
    fetch = ("wget", "-qO-", "http://127.0.0.1:8099/i")
    assert docker.out("run", "--rm", "--network", "host", "busybox", *fetch) == "hi"
    tell(daemon, "cat", daemon.kind)
    web = docker.out("inspect", "-f", "{{.NetworkSettings.Networks.n1.IPAddress}}", "web")
    cat = docker.out("inspect", "-f", "{{.NetworkSettings.Networks.n1.IPAddress}}", "cat")
    look = "ip -4 addr show eth0; nslookup web 127.0.0.11"
    other = docker.out("run", "--rm", "--network", "n1", "busybox", "sh", "-c", look)
    assert not {f"{web}/16", f"{cat}/16"} & set(other.split()), "an address was given twice"
    assert web in other.split()
    assert web in docker.out("exec", "cat", "nslookup", "web", "127.0.0.11").split()
    docker.out("network", "connect", "n2", "web")
    docker.out("network", "disconnect", "n2", "web")
    assert len(docker.out("logs", "web").split()) > lines


def tell(daemon: Daemon, container: str, line: str) -> None:
    """Write a line to the container's stdin, and wait until it has come out of it."""
    attached = daemon.docker.popen("attach", container, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write(f"{line}\n".encode())
        attached.stdin.flush()
        assert attached.stdout.readline().decode() == f"{line}\n"
    finally:
        attached.kill()
        attached.communicate()


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
