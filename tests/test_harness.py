"""The harness itself, against the oracle where a daemon is needed: a broken ruler measures nothing."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

from harness import Client, Dockerd, Layer, Machine, Terminal, docker_archive, oci_archive
from harness.http import split_frames


def test_machine_notices_a_process_and_forgets_it_again() -> None:
    before = Machine.look()
    assert before.changes(before) == []
    assert before.links


def test_docker_archive_is_reproducible(tmp_path: Path) -> None:
    layers = [Layer({"a": b"1", "d": None, "l": "a"}), Layer({"b": b"2"})]
    first = docker_archive(tmp_path / "one.tar", layers, ["t:1"])
    assert first == docker_archive(tmp_path / "two.tar", layers, ["t:1"])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert manifest[0]["RepoTags"] == ["t:1"]
    assert len(manifest[0]["Layers"]) == 2


def test_both_archive_kinds_hold_the_same_image(tmp_path: Path) -> None:
    layers = [Layer({"a": b"1"})]
    assert docker_archive(tmp_path / "d", layers, []) == oci_archive(tmp_path / "o", layers, [])


def test_frames_are_taken_apart() -> None:
    data = b"\1\0\0\0\0\0\0\2hi" + b"\2\0\0\0\0\0\0\1!"
    assert split_frames(data) == [(1, b"hi"), (2, b"!")]


def test_oracle_runs_a_container(oracle: Dockerd) -> None:
    assert oracle.docker.out("run", "--rm", "busybox", "echo", "hello") == "hello"
    assert Path(f"/proc/{oracle.pid}/comm").read_text().strip() == "dockerd"


def test_hijack_carries_bytes_both_ways(oracle: Dockerd) -> None:
    api = Client(oracle.socket)
    body = {"Image": "busybox", "Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True}
    created = api.post("/containers/create", body).expect(201).json["Id"]
    connection = api.hijack("POST", f"/containers/{created}/attach", stream=1, stdin=1, stdout=1, stderr=1)
    assert connection.status == 101
    api.post(f"/containers/{created}/start").expect(204)
    connection.send(b"late")
    connection.close_write()
    assert b"".join(payload for _, payload in connection.frames()) == b"late"
    connection.close()
    oracle.reset()


def test_terminal_types_and_sees(tmp_path: Path) -> None:
    with Terminal(["sh"], os.environ, columns=80, rows=10) as terminal:
        terminal.type("echo $((40 + 2)); stty size; exit 3\n")
        terminal.wait_for("42")
        terminal.wait_for("10 80")
        assert terminal.wait_exit() == 3
