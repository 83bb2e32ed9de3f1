"""Volumes of plug-ins: the same requests to dockerd and to us, and what each asks of the plug-in."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Daemon, Dockerd, Longshored
from harness.plugin import SOCKETS, VolumePlugin

from longshore.errors import NotFound
from longshore.plugins import PluginFailure, plugin_names, plugin_of


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[VolumePlugin]:
    root = tmp_path / "theirs"
    root.mkdir()
    served = VolumePlugin("far-away", root, tmp_path / "plugins/far-away.sock")
    yield served
    served.close()


@pytest.fixture
def ours(root: None, machine: object, busybox_archive: Path, plugin: VolumePlugin) -> Iterator[Longshored]:
    """A daemon that finds the plug-in, where no other daemon of this machine does."""
    daemon = Longshored(isolated=True)
    try:
        start(daemon, plugin)
        daemon.load(busybox_archive)
        yield daemon
    finally:
        daemon.destroy()
        daemon.sweep()


@pytest.fixture
def theirs(root: None, machine: object, busybox_archive: Path, plugin: VolumePlugin) -> Iterator[Dockerd]:
    """A dockerd that finds it, for these tests alone: it forgets no plug-in, and waits for each."""
    if reason := Dockerd.missing():
        pytest.skip(reason)
    daemon = Dockerd()
    try:
        start(daemon, plugin)
        daemon.load(busybox_archive)
        yield daemon
    finally:
        daemon.stop()
        daemon.destroy()


def start(daemon: Daemon, plugin: VolumePlugin) -> None:
    """In the daemon's own mount namespace the place of plug-ins is the plug-in's."""
    SOCKETS.mkdir(parents=True, exist_ok=True)
    if daemon.process is None or daemon.process.poll() is not None:
        daemon.start()
    inside = ["nsenter", "--mount", "-t", str(daemon.pid)]
    subprocess.run([*inside, "mount", "--bind", str(plugin.socket.parent), str(SOCKETS)], check=True)


def life(daemon: Daemon, plugin: VolumePlugin) -> list[Any]:
    """A plug-in's volume from its beginning to its end; what the client saw."""
    api, seen = Client(daemon.socket, "1.41"), []

    def note(answer: Any, *fields: str) -> None:
        body = answer.json if answer.body else {}
        seen.append((answer.status, {field: body.get(field) for field in fields or ("message",)}))

    wanted = {"Name": "far", "Driver": plugin.name, "DriverOpts": {"a": "b"}, "Labels": {"l": "1"}}
    whole = ("Name", "Driver", "Options", "Labels", "Scope", "Mountpoint", "Status")
    note(api.post("/volumes/create", wanted), *whole[:5])
    note(api.get("/volumes/far"), *whole)
    note(api.post("/volumes/create", {"Name": "far", "Driver": "local"}))
    note(api.post("/volumes/create", {"Name": "other", "Driver": "lsh-nobody"}))
    docker = daemon.docker
    for text in ("one", "two"):
        seen.append(
            docker.out("run", "--rm", "-v", "far:/d", "busybox", "sh", "-c", f"echo {text} >> /d/f; cat /d/f")
        )
    docker.out("create", "--name", "user", "-v", "far:/d", "busybox", "true")
    listed = api.get("/volumes", filters=json.dumps({"driver": [plugin.name]})).json["Volumes"]
    seen.append([(each["Name"], each["Driver"]) for each in listed])
    refused = api.delete("/volumes/far")
    seen.append((refused.status, refused.message.partition(" - ")[0]))
    docker.out("rm", "user")
    plugin.broken["VolumeDriver.Remove"] = "not now"
    note(api.delete("/volumes/far"))
    plugin.broken.clear()
    note(api.delete("/volumes/far"))
    plugin.broken["VolumeDriver.Create"] = "out of space"
    note(api.post("/volumes/create", wanted))
    plugin.broken.clear()
    seen.append(plugin.name in api.get("/info").json["Plugins"]["Volume"])
    return seen


def strays(daemon: Daemon, plugin: VolumePlugin) -> list[Any]:
    """Volumes that come and go behind the daemon's back; what the client saw."""
    api, docker, seen = Client(daemon.socket, "1.41"), daemon.docker, []

    def note(answer: Any, *fields: str) -> None:
        body = answer.json if answer.body else {}
        seen.append((answer.status, {field: body.get(field) for field in fields or ("message",)}))

    def names(**filters: list[str]) -> list[str]:
        listed = api.get("/volumes", filters=json.dumps(filters)).json["Volumes"] or []
        return sorted(each["Name"] for each in listed)

    def lose(name: str) -> None:
        (plugin.root / name).rmdir()

    for name in ("stray", "mine", "lost", "used"):
        (plugin.root / name).mkdir()
    note(api.get("/volumes/stray"), "Name", "Driver", "Mountpoint")
    note(api.post("/volumes/create", {"Name": "mine"}), "Name", "Driver")
    note(api.get("/volumes/nowhere"))
    seen.append(names(driver=[plugin.name]))
    note(api.get("/volumes/lost"), "Name")
    docker.out("create", "--name", "user", "-v", "used:/d", "busybox", "true")
    for name in ("lost", "used"):
        lose(name)
    seen.append(names(driver=[plugin.name]))
    note(api.get("/volumes/lost"))
    note(api.post("/volumes/create", {"Name": "used", "Driver": plugin.name}))
    note(api.post("/volumes/create", {"Name": "lost", "Driver": "local"}), "Name", "Driver")
    docker.out("rm", "user")
    docker.out("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "elsewhere")
    docker.out("volume", "create", "near")
    volumes = api.get("/system/df").json["Volumes"]
    seen.append(sorted(each["Name"] for each in volumes))
    pruned = api.post("/volumes/prune").json["VolumesDeleted"]
    seen.append(sorted(pruned))
    seen.append(names())
    note(api.delete("/volumes/stray"))
    note(api.delete("/volumes/stray"))
    note(api.delete("/volumes/stray", force=1))
    note(api.delete("/volumes/mine"))
    note(api.delete("/volumes/elsewhere"))
    note(api.get("/volumes/used"))
    return seen


@pytest.mark.parametrize("what", [life, strays])
def test_as_dockerd(
    what: Callable[[Daemon, VolumePlugin], list[Any]],
    ours: Longshored,
    theirs: Dockerd,
    plugin: VolumePlugin,
) -> None:
    seen = what(theirs, plugin)
    asked = plugin.methods("Create", "Mount", "Unmount", "Remove")
    plugin.asked.clear()
    assert what(ours, plugin) == seen
    assert plugin.methods("Create", "Mount", "Unmount", "Remove") == asked


def test_one_that_is_slow_holds_up_nobody_else(ours: Longshored, plugin: VolumePlugin) -> None:
    api = Client(ours.socket, "1.50")
    go_on = plugin.held["VolumeDriver.Create"] = threading.Event()
    answers: list[int] = []

    def create() -> None:
        made = Client(ours.socket, "1.50").post("/volumes/create", {"Name": "far", "Driver": plugin.name})
        answers.append(made.status)

    slow = [threading.Thread(target=create) for _ in range(2)]
    try:
        for each in slow:
            each.start()
        while not plugin.methods("Create"):
            time.sleep(0.01)
        assert api.post("/volumes/create", {"Name": "near", "Driver": "local"}).status == 201
        assert ours.docker.out("run", "--rm", "-v", "/d", "busybox", "echo", "here") == "here"
        assert api.delete("/volumes/near").status == 204
        assert not answers
    finally:
        go_on.set()
        for each in slow:
            each.join()
    assert answers == [201, 201]
    assert len(plugin.methods("Create")) == 1
    assert api.delete("/volumes/far").status == 204


def test_survives_a_restart(ours: Longshored, plugin: VolumePlugin) -> None:
    docker = ours.docker
    docker.out("volume", "create", "-d", plugin.name, "--label", "l=1", "far")
    docker.out("create", "--name", "user", "-v", "far:/d", "busybox", "touch", "/d/x")
    ours.stop()
    start(ours, plugin)
    docker.out("start", "-a", "user")
    assert [path.name for path in (plugin.root / "far").iterdir()] == ["x"]
    described = json.loads(docker.out("volume", "inspect", "far"))[0]
    assert (described["Driver"], described["Labels"]) == (plugin.name, {"l": "1"})
    assert docker("volume", "rm", "far", check=False).returncode
    docker.out("rm", "user")
    docker.out("volume", "rm", "far")
    assert not list(plugin.root.iterdir())


def test_one_that_is_gone_hides_no_other(ours: Longshored, plugin: VolumePlugin) -> None:
    docker = ours.docker
    docker.out("volume", "create", "-d", plugin.name, "far")
    docker.out("volume", "create", "near")
    plugin.close()
    assert docker.out("volume", "ls", "-q").split() == ["far", "near"]
    again = VolumePlugin(plugin.name, plugin.root, plugin.socket)
    try:
        docker.out("volume", "rm", "far")
        assert docker.out("volume", "ls", "-q").split() == ["near"]
    finally:
        again.close()


def test_where_plug_ins_are_found(tmp_path: Path) -> None:
    sockets, etc = tmp_path / "run", tmp_path / "etc"
    etc.mkdir()
    inner = VolumePlugin("inner", tmp_path / "volumes", sockets / "inner/inner.sock")
    try:
        (etc / "spec.spec").write_text(f"unix://{inner.socket}\n")
        (etc / "json.json").write_text(json.dumps({"Name": "json", "Addr": f"unix://{inner.socket}"}))
        (etc / "broken.json").write_text("{")
        for name in ("inner", "spec", "json"):
            assert plugin_of(name, sockets, [etc]).implements("VolumeDriver")
            assert not plugin_of(name, sockets, [etc]).implements("NetworkDriver")
        assert plugin_names(sockets, [etc]) == ["broken", "inner", "json", "spec"]
        for name in ("broken", "nobody", "../inner", "vieux/sshfs:latest"):
            with pytest.raises(NotFound, match="not found"):
                plugin_of(name, sockets, [etc])
        inner.broken["VolumeDriver.Get"] = "as you wish"
        with pytest.raises(PluginFailure, match=r"^VolumeDriver.Get: as you wish$"):
            plugin_of("inner", sockets).call("VolumeDriver.Get", {"Name": "x"})
    finally:
        inner.close()
    with pytest.raises(PluginFailure, match=r"inner.sock"):
        plugin_of("spec", sockets, [etc]).call("VolumeDriver.Get", patience=0)
