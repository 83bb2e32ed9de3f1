"""What is bound to the engine ends with it, and does not begin once it has ended."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from longshore.runtime.containerd.supervisor import _bound_to_us

WAITING = """
import os, subprocess, sys, time
from longshore.runtime.containerd.supervisor import _bound_to_us
subprocess.Popen(_bound_to_us([sys.argv[1], "-c", "echo $$; exec /bin/sleep 600"]))
time.sleep(600)
"""


@pytest.fixture(params=["setpriv", "python"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if request.param == "python":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif not shutil.which("setpriv"):
        pytest.skip("there is no setpriv")
    return str(request.param)


def test_it_does_not_begin_without_the_engine(program: str) -> None:
    command = _bound_to_us(["/bin/sh", "-c", 'echo "$@"', "sh", "a b", "-c"])
    assert ("setpriv" in command[0]) == (program == "setpriv")
    assert subprocess.run(command, capture_output=True, text=True).stdout == "a b -c\n"
    # As if the engine had ended, its child is somebody else's by now.
    other = ["/bin/sh", "-c", '"$@"; :', "sh", *command]
    assert subprocess.run(other, capture_output=True, text=True).stdout == ""


def test_it_ends_with_the_engine(program: str) -> None:
    del program
    engine = subprocess.Popen(
        [sys.executable, "-c", WAITING, "/bin/sh"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with engine:
        assert engine.stdout
        pidfd = os.pidfd_open(int(engine.stdout.readline()))
        try:
            assert select.select([pidfd], [], [], 0.1)[0] == []
            engine.kill()
            assert select.select([pidfd], [], [], 20)[0] == [pidfd]
        finally:
            os.close(pidfd)
