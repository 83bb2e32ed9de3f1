"""Who is taken for a lost shim, and so killed with all that is its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from longshore.runtime.containerd.orphans import Orphans

ID = "5" * 64
WAITING = "import os, time; {}; print(flush=True); time.sleep(600)"


@pytest.fixture
def stack(root: None) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Place:
    """Where a containerd would be, and processes that say they belong to it."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self.address = root / "containerd.sock"
        self.bundles = root / "daemon/io.containerd.runtime.v2.task/moby"
        self.bundles.mkdir(parents=True)
        self.orphans = Orphans(self.address, "moby", [root / "daemon"])
        self.shim = root / "containerd-shim-runc-v2"
        shutil.copy(os.path.realpath(sys.executable), self.shim)
        self._stack = stack

    def start(
        self, id: str = ID, *, program: Path | None = None, first: str = "pass"
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [
                *(self.shim, "-S", "-c", WAITING.format(first)),
                *("-namespace", "moby", "-id", id, "-address", self.address),
            ],
            executable=program or self.shim,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._stack.enter_context(process)
        self._stack.callback(_end, process.pid)
        assert process.stdout and process.stdout.readline() == b"\n"
        return process


def _end(session: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)


@pytest.fixture
def place(tmp_path: Path, stack: ExitStack) -> Place:
    return Place(tmp_path, stack)


def test_a_shim_goes_with_all_below_it(place: Place) -> None:
    sleep = f"os.execv({shutil.which('sleep')!r}, ['sleep', '600'])"
    shim = place.start(first=f"os.fork() or os.fork() or {sleep}")
    (place.bundles / ID).mkdir()
    assert place.orphans.find() == {ID}
    started = time.monotonic()
    while len(family := list(place.orphans._processes(ID))) < 3:
        assert time.monotonic() < started + 10
        time.sleep(0.01)
    place.orphans.remove(ID)
    assert shim.wait(10) == -signal.SIGKILL and not place.orphans.find()
    assert not place.orphans._processes(ID) & {*family} and not (place.bundles / ID).exists()


@pytest.mark.parametrize("id", ["/etc", "../../victim", "..", ".", "a//b", "", "x\ny"])
def test_an_id_is_never_a_path(place: Place, id: str) -> None:
    place.start(id)
    assert place.orphans.find() == set()


def test_others_may_call_themselves_what_they_like(place: Place, tmp_path: Path) -> None:
    liars = [
        place.start(first="os.setresuid(65534, 65534, 65534)"),
        place.start(first=f"os.chroot({str(tmp_path)!r})"),
        place.start(program=Path(os.path.realpath(sys.executable))),
    ]
    assert place.orphans.find() == set()
    place.orphans.remove(ID)
    assert [liar.poll() for liar in liars] == [None] * 3
