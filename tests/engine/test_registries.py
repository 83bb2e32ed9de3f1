"""Two registries at once, one behind TLS and a password, one plain, and dockerd on the other side."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import Daemon, DockerCLI, Dockerd, Layer, Longshored, docker_archive
from harness.certificates import make_authority
from harness.registry import PASSWORD, USER, Registry

ADDRESS = "192.0.2.10"
"""Of no loopback, which nobody has to trust: the registries have to prove who they are."""
GUARDED, PLAIN = f"{ADDRESS}:5443", f"{ADDRESS}:5000"
NOISE = random.Random(6).randbytes(2_000_000)


class World(NamedTuple):
    """Two daemons and two registries in a network of their own."""

    ours: Longshored
    theirs: Dockerd
    authority: Path
    certificates: Path
    """/etc/docker/certs.d of both daemons."""
    config: Path


def _within(daemon: Daemon, enter: list[str], etc: Path) -> None:
    """Let it run in a network namespace, with our own /etc/docker."""
    certificates = "docker/certs.d"  # bound, since overlayfs need not see what is put below it later
    script = (
        f"mount -t overlay -o lowerdir={etc}:/etc overlay /etc && "
        f'mount --bind {etc}/{certificates} /etc/{certificates} && exec "$@"'
    )
    command = daemon.command()
    daemon.command = lambda: [*enter, "unshare", "--mount", "sh", "-c", script, "sh", *command]  # type: ignore[method-assign]


@pytest.fixture
def world(root: None, machine: object, tmp_path: Path) -> Iterator[World]:
    """All of it, started, with an image `app:1` in our daemon."""
    if reason := Dockerd.missing() or (Registry.missing() and "docker-registry is not installed"):
        pytest.skip(str(reason))
    certificates = tmp_path / "etc/docker/certs.d"
    certificates.mkdir(parents=True)
    config = tmp_path / "daemon.json"
    config.write_text("{}")
    (tmp_path / "authority").mkdir()
    authority = make_authority(tmp_path / "authority", ADDRESS)
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    enter = ["nsenter", "--net", "-t", str(holder.pid)]
    ours = Longshored("--config-file", str(config), "--bridge=none")
    theirs = Dockerd("--bridge=none", "--iptables=false", "--insecure-registry", PLAIN, isolated=False)
    registries: list[Registry] = []
    try:
        while Path(f"/proc/{holder.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            time.sleep(0.01)
        subprocess.run(
            [*enter, "sh", "-c", f"ip link set lo up; ip address add {ADDRESS}/32 dev lo"], check=True
        )
        pair = authority / "server.crt", authority / "server.key"
        registries.append(Registry(auth=True, certificate=pair, address=GUARDED, inside=enter))
        registries.append(Registry(address=PLAIN, inside=enter))
        for daemon in (ours, theirs):
            _within(daemon, enter, tmp_path / "etc")
            daemon.start()
        layers = [Layer({"a": b"small"}), Layer({"noise": NOISE}), Layer({})]
        docker_archive(tmp_path / "image.tar", layers, ["app:1"])
        ours.load(tmp_path / "image.tar")
        yield World(ours, theirs, authority, certificates, config)
    finally:
        for daemon in (ours, theirs):
            daemon.destroy()
        for registry in registries:
            registry.close()
        holder.kill()
        holder.wait()


def failure(docker: DockerCLI, *arguments: str) -> str:
    """What is said of a command that fails."""
    done = docker(*arguments, check=False)
    assert done.returncode != 0, done.stdout
    return done.stderr


def log_in(docker: DockerCLI, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    """docker login"""
    return docker("login", "-u", USER, "--password-stdin", GUARDED, input=password, check=False)


def digest_in(text: str) -> str:
    found = re.findall(r"sha256:[0-9a-f]{64}", text)
    assert found, text
    return str(found[-1])


def test_an_image_goes_round_and_stays_the_same(world: World) -> None:
    ours, theirs = world.ours.docker, world.theirs.docker
    guarded, plain = f"{GUARDED}/team/app", f"{PLAIN}/team/app"
    id = ours.out("inspect", "-f", "{{.Id}}", "app:1")
    for name in (guarded, plain):
        ours("tag", "app:1", f"{name}:1")

    assert "certificate signed by unknown authority" in failure(ours, "push", f"{guarded}:1")
    assert "certificate signed by unknown authority" in log_in(ours).stderr
    trusted = world.certificates / GUARDED
    trusted.mkdir()
    shutil.copyfile(world.authority / "ca.crt", trusted / "ca.crt")
    assert "no basic auth credentials" in failure(ours, "push", f"{guarded}:1")
    assert "401 Unauthorized" in log_in(ours, "wrong").stderr
    assert "Login Succeeded" in log_in(ours).stdout
    digest = digest_in(ours.out("push", f"{guarded}:1"))

    assert "server gave HTTP response to HTTPS client" in failure(ours, "push", f"{plain}:1")
    mirror = f"http://{PLAIN}"
    world.config.write_text(json.dumps({"insecure-registries": [PLAIN], "registry-mirrors": [mirror]}))
    os.kill(world.ours.pid, signal.SIGHUP)
    deadline = time.monotonic() + 20
    while f"{mirror}/" not in world.ours.client.get("/info").json["RegistryConfig"]["Mirrors"]:
        assert time.monotonic() < deadline, "the configuration was not read again"
        time.sleep(0.05)
    ours("tag", "app:1", f"{PLAIN}/library/app:mirrored")
    assert digest_in(ours.out("push", f"{PLAIN}/library/app:mirrored")) == digest

    assert "Login Succeeded" in log_in(theirs).stdout
    assert digest_in(theirs.out("pull", f"{guarded}:1")) == digest
    assert theirs.out("inspect", "-f", "{{.Id}}", f"{guarded}:1") == id
    theirs("tag", f"{guarded}:1", f"{plain}:2")
    packed_by_them = digest_in(theirs.out("push", f"{plain}:2"))  # who compresses differently

    ours("rmi", "-f", id)
    assert f"Digest: {packed_by_them}" in ours.out("pull", f"{plain}@{packed_by_them}")
    assert ours.out("inspect", "-f", "{{.Id}}", f"{plain}@{packed_by_them}") == id
    ours("rmi", "-f", id)
    assert f"Digest: {digest}" in ours.out("pull", "app:mirrored")
    assert ours.out("inspect", "-f", "{{.Id}}", "app:mirrored") == id
    # What a mirror lent is pushed to neither registry's cost: both have every layer.
    ours("tag", "app:mirrored", f"{guarded}:3")
    said = ours.out("push", f"{guarded}:3")
    assert said.count("Layer already exists") == 3
    assert digest_in(said) == digest
    assert PASSWORD not in world.ours.log.read_text()
