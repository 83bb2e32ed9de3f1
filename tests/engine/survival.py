"""What the survival tests share: containers made quickly, and what a daemon has left on the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Client, Longshored
from harness.machine import cgroups_under, mounts_under, processes_of


def api_of(daemon: Longshored) -> Client:
    """A client of the newest version; it may be used from one thread."""
    return Client(daemon.socket, version="1.50", timeout=30)


def create(api: Client, name: str, *command: str, host: dict[str, Any] | None = None, **config: Any) -> str:
    body = {"Image": "busybox", "Cmd": list(command) or ["sleep", "600"], "StopTimeout": 1, **config}
    body["HostConfig"] = host or {}
    return str(api.post("/containers/create", body, name=name).expect(201).json["Id"])


def run(api: Client, name: str, *command: str, host: dict[str, Any] | None = None, **config: Any) -> str:
    id = create(api, name, *command, host=host, **config)
    api.post(f"/containers/{id}/start").expect(204)
    return id


def inspect(api: Client, id: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/containers/{id}/json").expect(200).json
    return found


def state(api: Client, id: str) -> dict[str, Any]:
    found: dict[str, Any] = inspect(api, id)["State"]
    return found


def logs(api: Client, id: str) -> list[str]:
    """The lines of stdout; the frames' headers are cut off by the daemon's own framing of whole lines."""
    from harness.http import split_frames

    answer = api.get(f"/containers/{id}/logs", stdout=1, stderr=1).expect(200)
    return b"".join(payload for _, payload in split_frames(answer.body)).decode().splitlines()


def eventually(condition: Callable[[], Any], seconds: float = 15) -> Any:
    """The condition's value as soon as it is true; an AssertionError if it does not become so."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)
    return value


def containerd_pid(daemon: Longshored) -> int:
    return int((daemon.exec_root / "containerd/containerd.pid").read_text())


def kill_containerd(daemon: Longshored) -> int:
    """Kill the daemon's containerd; its pid."""
    pid = containerd_pid(daemon)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid))
    return pid


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def left_over(daemon: Longshored) -> list[str]:
    """What there is of containers, on disk and in the kernel, though the daemon has none."""
    try:
        return _left_over(daemon)
    except FileNotFoundError as exc:
        return [f"{exc.filename}, which was going just then"]


def _left_over(daemon: Longshored) -> list[str]:
    kept = {str(path) for path in (daemon.exec_root / "netns").glob("*")}
    found = [mount for mount in mounts_under(daemon.root) if mount not in kept] + daemon.namespaces_left()
    for directory in (
        daemon.data_root / "containers",
        daemon.data_root / "image/overlay2/layerdb/mounts",
        daemon.exec_root / "output",
        daemon.exec_root / "containerd/fifo",
        daemon.exec_root / "containerd/daemon/io.containerd.runtime.v2.task/moby",
        daemon.data_root / "containerd/io.containerd.runtime.v2.task/moby",
    ):
        found += [str(path) for path in directory.glob("*")]
    layers = {path.name for path in (daemon.data_root / "image/overlay2/layerdb/sha256").iterdir()}
    caches = {
        (daemon.data_root / f"image/overlay2/layerdb/sha256/{name}/cache-id").read_text() for name in layers
    }
    overlay = {path.name for path in (daemon.data_root / "overlay2").iterdir()} - {"l"}
    found += [f"overlay2/{name}" for name in overlay - caches]
    found += [f"link of {path}" for path in (daemon.data_root / "overlay2/l").iterdir() if not path.exists()]
    found += [str(path) for path in daemon.root.rglob("sandbox-*")]
    found += [str(path) for path in cgroups_under(daemon.root.name) if path.name != daemon.root.name]
    for pid in processes_of(str(daemon.root)):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if "shim" in command or "runc" in command:
            found.append(command)
    containers = subprocess.run(
        ["ctr", "-a", str(daemon.exec_root / "containerd/containerd.sock"), "-n", "moby", "c", "ls", "-q"],
        capture_output=True,
        text=True,
    )
    return found + [f"containerd's {id}" for id in containers.stdout.split()]


def links_of(daemon: Longshored) -> list[str]:
    """The ports of the daemon's default bridge."""
    bridge = api_of(daemon).get("/networks/bridge").json["Options"]["com.docker.network.bridge.name"]
    return [port.name for port in Path(f"/sys/class/net/{bridge}/brif").iterdir()]
