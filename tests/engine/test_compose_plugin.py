"""The current Compose, as the CLI's plug-in, with what the older one has not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Client, Longshored

APPLICATION = """
name: shop
services:
  store:
    image: busybox
    command: sh -c 'mkdir -p /data/www && cat /run/secrets/key > /data/www/index.html
      && exec httpd -f -p 80 -h /data/www'
    stop_signal: KILL
    volumes: [data:/data]
    secrets: [key]
    networks:
      back: {aliases: [database], ipv4_address: 10.213.9.20}
    healthcheck: {test: [CMD, wget, -qO-, "http://127.0.0.1/"], interval: 200ms, retries: 60}
  migrate:
    image: busybox
    command: wget -qO- http://database/
    networks: [back]
    depends_on: {store: {condition: service_healthy}}
  worker:
    build: {context: ., args: {WHAT: built}}
    command: sleep 1000
    stop_signal: KILL
    networks: [back]
    depends_on:
      store: {condition: service_healthy, restart: true}
      migrate: {condition: service_completed_successfully}
    deploy: {replicas: 2, resources: {limits: {memory: 64m}}}
  web:
    image: busybox
    command: sh -c 'mkdir -p /www && wget -qO /www/index.html http://store/ && echo up
      && exec httpd -f -h /www'
    stop_signal: KILL
    environment: [ROLE=front]
    networks: {front: {gw_priority: 1}, back: {}}
    ports: ["127.0.0.1::80"]
    configs: [{source: webconf, target: /etc/web.conf, mode: 0440}]
    depends_on: {store: {condition: service_healthy}}
    extra_hosts: ["up=host-gateway"]
    init: true
  debug:
    image: busybox
    profiles: [debug]
    command: sleep 1000
    stop_signal: KILL
    network_mode: service:web
networks:
  front: {}
  back:
    ipam: {config: [{subnet: 10.213.9.0/24, ip_range: 10.213.9.128/25}]}
volumes:
  data: {}
secrets:
  key: {file: ./key.txt}
configs:
  webconf: {content: "conf of ${COMPOSE_PROJECT_NAME}"}
"""
DOCKERFILE = "FROM busybox\nARG WHAT\nRUN echo $WHAT > /what\n"


class Project:
    """One project directory, and `docker compose` in it."""

    def __init__(self, daemon: Longshored, plugin: Path, directory: Path) -> None:
        self.api = Client(daemon.socket, "1.50")
        self.directory, self.program = directory, daemon.docker.program
        self.file = directory / "compose.yaml"
        self.file.write_text(APPLICATION)
        (directory / "key.txt").write_text("sesame\n")
        (directory / "Dockerfile").write_text(DOCKERFILE)
        plugins = directory / "config/cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(plugin)
        config = {"DOCKER_CONFIG": str(plugins.parent), "DOCKER_BUILDKIT": "0", "HOME": str(directory)}
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "COMPOSE_"))
        }
        self.env = kept | {"DOCKER_HOST": daemon.host} | config

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.program, "compose", *arguments],
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def states(self) -> dict[str, str]:
        """What `ps` says of each container."""
        lines = self("ps", "-a", "--format", "json").splitlines()
        return {one["Name"]: one["State"] for one in map(json.loads, lines)}


def find_plugin() -> Path | None:
    """docker-compose of release 2 or later, where the CLI or a shell would find it."""
    directories = ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")
    candidates = [Path(one, "docker/cli-plugins/docker-compose") for one in directories]
    candidates.append(Path(shutil.which("docker-compose") or "/nowhere"))
    for path in candidates:
        metadata = (
            subprocess.run([path, "docker-cli-plugin-metadata"], capture_output=True, text=True)
            if (os.access(path, os.X_OK))
            else None
        )
        if metadata and '"SchemaVersion"' in metadata.stdout:
            return path
    return None


@pytest.fixture
def project(daemon: Longshored, tmp_path: Path) -> Iterator[Project]:
    plugin = find_plugin()
    if plugin is None:
        pytest.skip("there is no docker-compose of release 2 or later")
    yield Project(daemon, plugin, tmp_path)
    daemon.reset()
    daemon.docker("image", "rm", "-f", "shop-worker", check=False)


def fetch(where: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{where}/") as answer:
        return str(answer.read().decode())


def test_an_application_lives_its_life(project: Project) -> None:
    project("up", "-d", "--wait")
    expected = {"shop-store-1", "shop-migrate-1", "shop-worker-1", "shop-worker-2", "shop-web-1"}
    states = project.states()
    assert set(states) == expected
    assert {name for name, state in states.items() if state != "running"} == {"shop-migrate-1"}
    assert fetch(project("port", "web", "80").strip()) == "sesame\n"
    assert project("exec", "-T", "web", "cat", "/etc/web.conf") == "conf of shop"
    assert project("exec", "-T", "--index", "2", "worker", "cat", "/what") == "built\n"
    assert project("run", "--rm", "-T", "worker", "wget", "-qO-", "http://database/") == "sesame\n"
    assert "up" in project("logs", "--no-log-prefix", "web") and "httpd" in project("top", "web")
    assert len(project("stats", "--no-stream", "--format", "json").splitlines()) == 4

    project("--profile", "debug", "up", "-d")
    assert project("exec", "-T", "debug", "wget", "-qO-", "http://127.0.0.1/") == "sesame\n"
    project("cp", "key.txt", "web:/tmp/key")
    assert project("exec", "-T", "web", "cat", "/tmp/key") == "sesame\n"
    project("pause", "web")
    assert project.states()["shop-web-1"] == "paused"
    project("unpause", "web")

    project.file.write_text(APPLICATION.replace("ROLE=front", "ROLE=changed"))
    project("--profile", "debug", "up", "-d", "--scale", "worker=3")
    assert project("exec", "-T", "web", "sh", "-c", "echo $ROLE") == "changed\n"
    assert project("exec", "-T", "debug", "wget", "-qO-", "http://127.0.0.1/") == "sesame\n"
    # A service that another depends on takes it along.
    before = project.api.get("/containers/shop-worker-3/json").json["State"]["StartedAt"]
    project("restart", "store")
    assert project.api.get("/containers/shop-worker-3/json").json["State"]["StartedAt"] > before
    project("kill", "worker")
    assert project.states()["shop-worker-1"] == "exited"

    project("--profile", "debug", "down", "-v", "--remove-orphans", "--rmi", "local")
    assert project.api.get("/containers/json", all=1).json == []
    networks, volumes = project.api.get("/networks").json, project.api.get("/volumes").json["Volumes"] or []
    assert not [each["Name"] for each in [*networks, *volumes] if each["Name"].startswith("shop")]
