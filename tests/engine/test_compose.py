"""A Compose application of several services, brought up, scaled, changed and taken down by docker-compose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Client, Longshored

APPLICATION = """
version: "2.4"
services:
  store:
    image: busybox
    command: sh -c 'mkdir -p /data/www && echo stored > /data/www/index.html && sleep 1
      && exec httpd -f -p 80 -h /data/www'
    stop_signal: KILL
    volumes: [data:/data]
    networks:
      back: {aliases: [database], ipv4_address: 10.213.7.20}
    healthcheck: {test: [CMD, wget, -qO-, "http://127.0.0.1/"], interval: 200ms, retries: 50}
  worker:
    image: busybox
    command: sh -c 'wget -qO /tmp/index.html http://database/ && exec sleep 1000'
    stop_signal: KILL
    networks: [back]
    depends_on:
      store: {condition: service_healthy}
    restart: "no"
  web:
    image: busybox
    command: sh -c 'mkdir -p /www && wget -qO /www/index.html http://store/ && exec httpd -f -p 80 -h /www'
    stop_signal: KILL
    environment: [ROLE=front]
    networks: [front, back]
    ports: ["127.0.0.1::80"]
    mem_limit: 64m
    depends_on:
      store: {condition: service_healthy}
networks:
  front: {}
  back:
    ipam:
      config: [{subnet: 10.213.7.0/24}]
volumes:
  data: {}
"""


class Project:
    """One project directory, and docker-compose in it."""

    def __init__(self, daemon: Longshored, directory: Path) -> None:
        self.api = Client(daemon.socket, "1.50")
        self.directory = directory
        self.file = directory / "docker-compose.yml"
        self.file.write_text(APPLICATION)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        self.env = kept | {"DOCKER_HOST": daemon.host, "HOME": str(directory), "COMPOSE_PROJECT_NAME": "app"}

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker-compose", *arguments],
            cwd=self.directory,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def of_service(self, name: str) -> list[dict[str, Any]]:
        filters = json.dumps({"label": [f"com.docker.compose.service={name}"]})
        found = self.api.get("/containers/json", all=1, filters=filters).expect(200).json
        return [self.api.get(f"/containers/{each['Id']}/json").expect(200).json for each in found]


@pytest.fixture
def project(daemon: Longshored, tmp_path: Path) -> Iterator[Project]:
    if shutil.which("docker-compose") is None:
        pytest.skip("there is no docker-compose; `make setup` installs it where the distribution has it")
    yield Project(daemon, tmp_path)
    daemon.reset()


def test_an_application_lives_its_life(project: Project) -> None:
    project("up", "-d")
    (store,), (worker,), (web,) = (project.of_service(name) for name in ("store", "worker", "web"))
    assert store["State"]["Health"]["Status"] == "healthy"
    assert store["NetworkSettings"]["Networks"]["app_back"]["IPAddress"] == "10.213.7.20"
    assert worker["State"]["Running"] and worker["State"]["StartedAt"] > store["State"]["StartedAt"]
    assert set(web["NetworkSettings"]["Networks"]) == {"app_front", "app_back"}
    assert web["HostConfig"]["Memory"] == 64 << 20
    where = project("port", "web", "80").strip()
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{where}/") as answer:
        assert answer.read() == b"stored\n"

    project("up", "-d", "--scale", "worker=3")
    assert len(project.of_service("worker")) == 3
    assert project("exec", "-T", "worker", "wget", "-qO-", "http://web/") == "stored\n"

    project.file.write_text(APPLICATION.replace("ROLE=front", "ROLE=changed"))
    project("up", "-d", "--scale", "worker=3")
    (again,) = project.of_service("web")
    assert again["Id"] != web["Id"] and "ROLE=changed" in again["Config"]["Env"]
    assert project.of_service("store")[0]["Id"] == store["Id"]

    project("stop")
    assert not any(each["State"]["Running"] for each in project.of_service("worker"))
    project("start")
    assert "stored" in project("exec", "-T", "worker", "cat", "/tmp/index.html")
    assert "app_web_1" in project("ps").replace("-", "_")  # as release 2 spells it

    project("down", "-v")
    assert project.api.get("/containers/json", all=1).json == []
    networks, volumes = project.api.get("/networks").json, project.api.get("/volumes").json["Volumes"] or []
    assert not [each["Name"] for each in [*networks, *volumes] if each["Name"].startswith("app")]
