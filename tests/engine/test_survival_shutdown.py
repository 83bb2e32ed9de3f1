"""The end of the daemon: signals, timeouts, live-restore, and a second daemon on the same roots."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine.survival import api_of, eventually, left_over, run, state
from harness import Longshored, StartFailure
from harness.machine import mounts_under, processes_of


@pytest.fixture
def daemon(root: None, machine: Any, busybox_archive: Path) -> Iterator[Longshored]:
    one = Longshored()
    configuration = one.root / "daemon.json"
    configuration.write_text("{}")
    one.flags = ("--config-file", str(configuration))
    try:
        one.start()
        one.load(busybox_archive)
        yield one
        if one.process is None or one.process.poll() is not None:
            one.start()
        one.destroy()
        assert processes_of(str(one.root)) == []
    finally:
        one.sweep()


@pytest.mark.proves("ContainerConfig.StopTimeout")
def test_sigterm_stops_containers_each_in_its_time(daemon: Longshored) -> None:
    api = api_of(daemon)
    deaf = run(api, "deaf", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", StopTimeout=2)
    polite = run(api, "polite", "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done", StopTimeout=10)
    time.sleep(0.3)
    begun = time.monotonic()
    assert daemon.stop() == 0
    assert 1.5 < time.monotonic() - begun < 8
    assert mounts_under(daemon.root) == []
    assert processes_of(str(daemon.root)) == []
    assert not (daemon.root / "pid").exists()
    assert not daemon.socket.exists()
    daemon.start()
    assert state(api, deaf)["ExitCode"] == 137
    assert state(api, polite)["ExitCode"] == 5
    assert not state(api, deaf)["Running"]


def test_live_restore_lets_containers_run_on(daemon: Longshored) -> None:
    Path(daemon.root / "daemon.json").write_text('{"live-restore": true}')
    os.kill(daemon.pid, signal.SIGHUP)
    api = api_of(daemon)
    eventually(lambda: api.get("/info").json["LiveRestoreEnabled"])
    id = run(api, "lives")
    restarting = run(api, "restarting", "false", host={"RestartPolicy": {"Name": "always"}})
    before = state(api, id)
    begun = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begun < 4
    assert Path(f"/proc/{before['Pid']}").exists()
    daemon.start()
    assert state(api, id) == before
    assert state(api, restarting)["Status"] in ("restarting", "running", "exited")
    Path(daemon.root / "daemon.json").write_text("{}")


def test_a_third_signal_forces_the_end(daemon: Longshored) -> None:
    api = api_of(daemon)
    id = run(api, "deaf", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", StopTimeout=60)
    time.sleep(0.3)
    assert daemon.process is not None
    for _ in range(3):
        os.kill(daemon.pid, signal.SIGTERM)
        time.sleep(0.2)
    assert daemon.process.wait(5) == 128 + signal.SIGTERM
    daemon.start()
    assert state(api, id)["Running"]
    api.delete(f"/containers/{id}", force=1).expect(204)


def test_sighup_with_a_broken_file_changes_nothing(daemon: Longshored) -> None:
    api = api_of(daemon)
    (daemon.root / "daemon.json").write_text("{broken")
    os.kill(daemon.pid, signal.SIGHUP)
    time.sleep(0.3)
    assert api.get("/_ping").status == 200
    (daemon.root / "daemon.json").write_text(json.dumps({"labels": ["a=b"]}))
    os.kill(daemon.pid, signal.SIGHUP)
    eventually(lambda: api.get("/info").json["Labels"] == ["a=b"])


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        ("pid file", "is still running"),
        ("data root", "another daemon uses the data root"),
        ("exec root", "another daemon uses the exec root"),
    ],
)
def test_a_second_daemon_is_refused(daemon: Longshored, shared: str, message: str) -> None:
    id = run(api_of(daemon), "mine")
    second = Longshored()
    own = second.root
    second.flags = ("--config-file", str(daemon.root / "daemon.json"))
    if shared == "data root":
        second.data_root = daemon.data_root
    if shared == "exec root":
        second.exec_root = daemon.exec_root
    if shared == "pid file":
        second.root = daemon.root
    try:
        with pytest.raises(StartFailure, match=message):
            second.start()
    finally:
        second.root = own
        second.sweep()
    assert (daemon.root / "pid").read_text() == str(daemon.pid)
    assert state(api_of(daemon), id)["Running"]


def test_a_pid_file_of_somebody_else_is_no_daemon(daemon: Longshored) -> None:
    """After a crash the number in it may belong to any process."""
    daemon.kill()
    (daemon.root / "pid").write_text(str(os.getpid()))
    daemon.start()
    assert left_over(daemon) == []
