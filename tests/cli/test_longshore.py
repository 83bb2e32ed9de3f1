"""`longshore` as a command, run the way its user runs it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from harness import Longshored

ROOT = Path(__file__).resolve().parents[2]


def longshore(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "bin/longshore", *arguments], capture_output=True, text=True, env=os.environ | env, cwd="/"
    )


def test_runs_from_anywhere_through_a_symbolic_link(tmp_path: Path) -> None:
    link = tmp_path / "ls"
    link.symlink_to(ROOT / "bin/longshore")
    done = subprocess.run([link, "version"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (0, "longshore")


def test_doctor_speaks_json_and_its_exit_status_agrees() -> None:
    done = longshore("doctor", "--json")
    report = json.loads(done.stdout)
    problems = [finding for finding in report["findings"] if finding["level"] == "problem"]
    assert done.returncode == (1 if problems else 0)
    assert report["ok"] is not bool(problems)
    assert {"python", "kernel", "overlayfs", "containerd"} <= {
        finding["name"] for finding in report["findings"]
    }
    assert all(finding["mend"] for finding in report["findings"] if finding["level"] != "ok")


def test_doctor_sees_a_program_that_is_missing(tmp_path: Path) -> None:
    for tool in ("readlink", "dirname"):
        (tmp_path / tool).symlink_to(Path("/usr/bin", tool))
    done = longshore("doctor", "--json", PATH=str(tmp_path))
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["containerd"]["level"] == "problem"
    assert done.returncode == 1


def test_doctor_refuses_a_data_root_that_overlayfs_cannot_use(root: None) -> None:
    findings = {
        finding["name"]: finding
        for finding in json.loads(longshore("doctor", "--json", "--data-root", "/proc/x").stdout)["findings"]
    }
    assert "proc" in findings["data root"]["found"]


def test_trace_without_a_daemon_says_so(tmp_path: Path) -> None:
    done = longshore("trace", "-H", f"unix://{tmp_path}/none.sock")
    assert done.returncode == 1
    assert "No such file" in done.stderr


def test_trace_of_a_start(daemon: Longshored) -> None:
    daemon.docker("run", "-d", "--name", "traced", "busybox", "true")
    done = longshore("trace", "traced", DOCKER_HOST=daemon.host)
    assert done.returncode == 0, done.stderr
    assert "start" in done.stdout.splitlines()[0]
    trace = json.loads(longshore("trace", "traced", "--json", "-H", daemon.host).stdout)
    assert trace["spans"][0]["parent"] is None
    assert trace["spans"][0]["duration"] > 0
    assert longshore("trace", "nope", "-H", daemon.host).returncode == 1
    daemon.reset()
