"""containerd as a task runtime, with a real containerd, runc and containers of busybox. Needs root."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from harness import find_busybox
from harness.machine import cgroups_under

from longshore.errors import Conflict, EngineError, NotFound, System, Unavailable
from longshore.runtime import RuntimeOptions, Stdio, TaskEvent
from longshore.runtime.containerd import ContainerdRuntime, connection
from longshore.runtime.containerd.orphans import cgroups_of

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("containerd"), reason="needs root and containerd"
)

RUNC = RuntimeOptions()


class Streams:
    """Collects a process's output until its end."""

    def __init__(self) -> None:
        self.stdin: int | None = None
        self.out = bytearray()
        self.err = bytearray()
        self._open = 0
        self._done = asyncio.Event()

    def attach(self, stdio: Stdio) -> None:
        self.stdin = stdio.stdin
        for fd, into in ((stdio.stdout, self.out), (stdio.stderr, self.err)):
            if fd is not None:
                self._open += 1
                asyncio.get_running_loop().add_reader(fd, self._read, fd, into)

    async def end(self) -> bytes:
        await asyncio.wait_for(self._done.wait(), 10)
        return bytes(self.out)

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(10):
            while text not in self.out:  # noqa: ASYNC110 - filled by a reader on the same loop
                await asyncio.sleep(0.01)

    def close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def _read(self, fd: int, into: bytearray) -> None:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        into += data
        if not data:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
            self._open -= 1
            if not self._open:
                self._done.set()


class Exits:
    """Every exit that a runtime reports."""

    def __init__(self, runtime: ContainerdRuntime) -> None:
        self.events: list[TaskEvent] = []
        runtime.subscribe(self.events.append)

    async def of(self, id: str, exec_id: str = "", timeout: float = 15) -> TaskEvent:
        async with asyncio.timeout(timeout):
            while not (found := self.all(id, exec_id)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return found[0]

    def all(self, id: str, exec_id: str = "") -> list[TaskEvent]:
        return [each for each in self.events if (each.kind, each.id, each.exec_id) == ("exit", id, exec_id)]


class Place:
    """A root file system, state and root directories, and the cgroups of one test."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.rootfs = base / "rootfs"
        (self.rootfs / "bin").mkdir(parents=True)
        shutil.copy(find_busybox(), self.rootfs / "bin/busybox")
        for applet in ("sh", "echo", "cat", "sleep", "true", "stty", "kill", "seq"):
            (self.rootfs / "bin" / applet).symlink_to("busybox")
        for name in ("proc", "dev"):
            (self.rootfs / name).mkdir()
        self.cgroup = f"/longshore-test-{base.name}"

    def runtime(self) -> ContainerdRuntime:
        return ContainerdRuntime(self.base / "state", self.base / "root")

    def spec(self, id: str, *args: str, terminal: bool = False) -> bytes:
        return json.dumps(
            {
                "ociVersion": "1.0.2",
                "process": self.process(*args, terminal=terminal),
                "root": {"path": str(self.rootfs)},
                "mounts": [
                    {"destination": "/proc", "type": "proc", "source": "proc"},
                    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                    {
                        "destination": "/dev/pts",
                        "type": "devpts",
                        "source": "devpts",
                        "options": ["newinstance", "ptmxmode=0666"],
                    },
                ],
                "linux": {
                    "cgroupsPath": f"{self.cgroup}/{id}",
                    "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
                },
            }
        ).encode()

    def process(self, *args: str, terminal: bool = False) -> dict[str, object]:
        return {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/bin"],
            "cwd": "/",
        }

    def containerd_pid(self) -> int:
        return int((self.base / "state/containerd.pid").read_text())


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    # containerd's and the shims' socket paths are limited to 108 bytes.
    base = Path("/tmp") / f"lsrt-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    place = Place(base)
    yield place
    state = str(base)
    for _ in range(100):
        left = [line for line in _processes() if state in line]
        if not left:
            break
        time.sleep(0.05)
    assert not left
    assert state not in Path("/proc/mounts").read_text()
    name = place.cgroup.removeprefix("/")
    cgroups = cgroups_under(name)
    assert not [each for each in cgroups if each.name != name]
    for parent in cgroups:
        parent.rmdir()
    assert not (base / "state/fifo").exists() or not list((base / "state/fifo").iterdir())
    shutil.rmtree(base)


def _processes() -> Iterator[str]:
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield each.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def _until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[tuple[ContainerdRuntime, Exits]]:
    runtime = place.runtime()
    await runtime.connect()
    exits = Exits(runtime)
    try:
        yield runtime, exits
    finally:
        for task in await runtime.tasks():
            if task.status != "stopped":
                await runtime.kill(task.id, signal.SIGKILL, all=True)
                await exits.of(task.id)
            await runtime.delete(task.id)
        await runtime.close(stop_child=True)


async def started(
    runtime: ContainerdRuntime, place: Place, id: str, *args: str, stdin: bool = False, terminal: bool = False
) -> Streams:
    streams = Streams()
    await runtime.create(
        id,
        place.spec(id, *args, terminal=terminal),
        stdin=stdin,
        terminal=terminal,
        runtime=RUNC,
        attach=streams.attach,
    )
    await runtime.start(id)
    return streams


def on_loop(test: Callable[[Place], Coroutine[None, None, None]]) -> Callable[[Place], None]:
    def run(place: Place) -> None:
        asyncio.run(test(place))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@on_loop
async def test_exit_code_and_output(place: Place) -> None:
    async with connected(place) as (runtime, exits):
        streams = await started(runtime, place, "c", "sh", "-c", "echo out; echo err >&2; exit 3")
        event = await exits.of("c")
        assert await streams.end() == b"out\n"
        assert bytes(streams.err) == b"err\n"
        assert event.exit_code == 3
        assert abs(event.exited_at - time.time_ns()) < 10e9
        status = await runtime.delete("c")
        assert status is not None
        assert (status.code, status.exited_at) == (3, event.exited_at)
        assert await runtime.delete("c") is None
        assert await runtime.tasks() == []
        kinds = [each.kind for each in exits.events]
        assert kinds == ["create", "start", "exit"]


@on_loop
async def test_stdin_ends_when_closed(place: Place) -> None:
    async with connected(place) as (runtime, exits):
        streams = Streams()
        spec = place.spec("c", "cat")
        await runtime.create("c", spec, stdin=True, terminal=False, runtime=RUNC, attach=streams.attach)
        assert streams.stdin is not None
        os.write(streams.stdin, b"before the start")
        streams.close_stdin()
        await runtime.close_stdin("c")
        await runtime.start("c")
        assert await streams.end() == b"before the start"
        assert (await exits.of("c")).exit_code == 0


@on_loop
async def test_terminal_and_its_size(place: Place) -> None:
    async with connected(place) as (runtime, exits):
        streams = await started(
            runtime, place, "c", "sh", "-c", "read x; stty size", stdin=True, terminal=True
        )
        await runtime.resize("c", 123, 45)
        assert streams.stdin is not None
        os.write(streams.stdin, b"\n")
        assert b"45 123\r\n" in await streams.end()
        streams.close_stdin()
        await exits.of("c")


@on_loop
async def test_exec(place: Place) -> None:
    async with connected(place) as (runtime, exits):
        await started(runtime, place, "c", "sleep", "100")
        streams = Streams()
        process = json.dumps(place.process("sh", "-c", "cat; exit 5")).encode()
        await runtime.exec_create("c", "e", process, stdin=True, terminal=False, attach=streams.attach)
        with pytest.raises(Conflict, match="id already in use"):
            await runtime.exec_create("c", "e", process, stdin=True, terminal=False, attach=streams.attach)
        pid = await runtime.exec_start("c", "e")
        assert pid in await runtime.pids("c")
        assert streams.stdin is not None
        os.write(streams.stdin, b"hello")
        streams.close_stdin()
        await runtime.close_stdin("c", "e")
        assert await streams.end() == b"hello"
        assert (await exits.of("c", "e")).exit_code == 5
        status = await runtime.exec_delete("c", "e")
        assert status is not None
        assert status.code == 5
        assert await runtime.exec_delete("c", "e") is None
        bad = json.dumps(place.process("nothere")).encode()
        await runtime.exec_create("c", "bad", bad, stdin=False, terminal=False, attach=Streams().attach)
        with pytest.raises(System, match=r"OCI runtime exec failed: .*executable file not found in \$PATH"):
            await runtime.exec_start("c", "bad")


@on_loop
async def test_pause_kill_and_refusals(place: Place) -> None:
    async with connected(place) as (runtime, exits):
        await started(runtime, place, "c", "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done")
        with pytest.raises(Conflict, match="Container c is already active"):
            await started(runtime, place, "c", "true")
        await runtime.pause("c")
        assert [task.status for task in await runtime.tasks()] == ["paused"]
        await runtime.resume("c")
        metrics = await runtime.metrics("c")
        assert metrics.cpu_total > 0
        await runtime.update("c", json.dumps({"pids": {"limit": 77}}).encode())
        assert (await runtime.metrics("c")).pids_limit == 77
        with pytest.raises(Conflict):
            await runtime.delete("c")
        await runtime.kill("c", signal.SIGTERM)
        assert (await exits.of("c")).exit_code == 9
        with pytest.raises(NotFound):
            await runtime.kill("c", signal.SIGTERM)
        with pytest.raises(NotFound):
            await runtime.start("unknown")


@on_loop
async def test_a_missing_program_is_told_and_undone(place: Place) -> None:
    async with connected(place) as (runtime, _):
        streams = Streams()
        for _attempt in range(2):
            with pytest.raises(System) as raised:
                await runtime.create(
                    "c",
                    place.spec("c", "foo"),
                    stdin=False,
                    terminal=False,
                    runtime=RUNC,
                    attach=streams.attach,
                )
        said = raised.value.message.replace("error during container init: ", "")  # runc 1.2 and newer
        assert said == (
            "failed to create task for container: failed to create shim task: OCI runtime create failed: "
            'runc create failed: unable to start container process: exec: "foo": '
            "executable file not found in $PATH: unknown"
        )
        assert await streams.end() == b""
        assert not (place.base / "state/fifo/c").exists()


@on_loop
async def test_exits_while_containerd_is_dead_come_once(place: Place) -> None:
    async with connected(place) as (runtime, exits):
        goes = Streams()
        script = "trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done"
        spec = place.spec("goes", "sh", "-c", script)
        pid = await runtime.create(
            "goes", spec, stdin=False, terminal=False, runtime=RUNC, attach=goes.attach
        )
        await runtime.start("goes")
        await goes.until(b"ready")
        stays = await started(runtime, place, "stays", "sh", "-c", "while :; do echo x; sleep 0.1; done")
        before = place.containerd_pid()
        os.kill(before, signal.SIGKILL)
        os.kill(pid, signal.SIGTERM)
        assert (await exits.of("goes")).exit_code == 4
        await asyncio.sleep(1)
        assert place.containerd_pid() != before
        assert len(exits.all("goes")) == 1
        assert exits.all("stays") == []
        seen = len(stays.out)
        await asyncio.sleep(0.5)
        assert len(stays.out) > seen
        await runtime.kill("stays", signal.SIGKILL)
        assert (await exits.of("stays")).exit_code == 137


@on_loop
async def test_an_exit_while_engine_and_containerd_are_dead(place: Place) -> None:
    """Newer containerds do away with tasks that they find ended; who asks their shims before still knows."""
    runtime = place.runtime()
    await runtime.connect()
    streams = Streams()
    script = "trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done"
    spec = place.spec("c", "sh", "-c", script)
    pid = await runtime.create("c", spec, stdin=False, terminal=False, runtime=RUNC, attach=streams.attach)
    await runtime.start("c")
    await streams.until(b"ready")
    containerd = os.pidfd_open(place.containerd_pid())
    await runtime.close(stop_child=False)
    signal.pidfd_send_signal(containerd, signal.SIGKILL)
    os.close(containerd)
    os.kill(pid, signal.SIGTERM)
    await streams.end()
    await asyncio.to_thread(_until_gone, pid)
    async with connected(place) as (runtime, exits):
        (task,) = await runtime.tasks()
        assert (task.id, task.status, task.exit_code) == ("c", "stopped", 4)
        assert exits.events == []
        status = await runtime.delete("c")
        assert status is not None and status.code == 4
        assert await runtime.tasks() == []


@on_loop
async def test_a_containerd_that_hangs_is_replaced(place: Place) -> None:
    async with connected(place) as (runtime, exits):
        await started(runtime, place, "c", "sleep", "100")
        before = place.containerd_pid()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection, "HEALTH_INTERVAL", 0.1)
            patch.setattr(connection, "HEALTH_TIMEOUT", 0.3)
            await asyncio.sleep(2.5)  # the interval that was under way
            os.kill(before, signal.SIGSTOP)
            async with asyncio.timeout(10):
                while place.containerd_pid() == before:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        assert [task.status for task in await runtime.tasks()] == ["running"]
        assert exits.all("c") == []


@on_loop
async def test_a_new_engine_takes_over(place: Place) -> None:
    first = place.runtime()
    await first.connect()
    old = Stdio(None, None, None)

    def attach(stdio: Stdio) -> None:
        nonlocal old
        old = stdio

    await first.create(
        "c",
        place.spec("c", "sh", "-c", "for i in $(seq 20); do echo $i; sleep 0.1; done; read x; echo $x"),
        stdin=True,
        terminal=False,
        runtime=RUNC,
        attach=attach,
    )
    await first.start("c")
    await asyncio.sleep(0.3)
    assert old.stdin is not None and old.stdout is not None and old.stderr is not None
    for fd in (old.stdin, old.stdout, old.stderr):
        os.close(fd)
    await first.close(stop_child=False)
    pid = place.containerd_pid()
    await asyncio.sleep(0.5)
    async with connected(place) as (second, exits):
        assert place.containerd_pid() == pid
        assert [(task.id, task.status) for task in await second.tasks()] == [("c", "running")]
        streams = Streams()
        await second.reattach("c", stdin=True, terminal=False, attach=streams.attach)
        await streams.until(b"20\n")
        assert streams.stdin is not None
        os.write(streams.stdin, b"taken over\n")
        streams.close_stdin()
        output = await streams.end()
        assert output == b"".join(b"%d\n" % each for each in range(1, 21)) + b"taken over\n"
        assert (await exits.of("c")).exit_code == 0
    os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended


@on_loop
async def test_a_hanging_containerd_is_not_taken_over(place: Place) -> None:
    first = place.runtime()
    await first.connect()
    await first.close(stop_child=False)
    before = place.containerd_pid()
    os.kill(before, signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "HEALTH_TIMEOUT", 0.3)
        async with connected(place) as (second, _):
            assert place.containerd_pid() != before
            assert await second.tasks() == []
    os.waitpid(before, 0)  # noqa: ASYNC222 - it has ended


@on_loop
async def test_somebody_elses_containerd_is_left_alone(place: Place) -> None:
    async with connected(place) as (owner, _):
        pid = place.containerd_pid()
        guest = ContainerdRuntime(
            place.base / "guest",
            place.base / "guest-root",
            str(place.base / "state/containerd.sock"),
            "guest",
        )
        await guest.connect()
        exits = Exits(guest)
        streams = await started(guest, place, "c", "echo", "guest")
        assert await streams.end() == b"guest\n"
        await exits.of("c")
        assert await owner.tasks() == []
        await guest.delete("c")
        await guest.close(stop_child=True)
        assert place.containerd_pid() == pid
        assert (await owner.version())[0]
        assert not (place.base / "guest/containerd.pid").exists()


@on_loop
async def test_a_created_task_is_deleted_at_once(place: Place) -> None:
    async with connected(place) as (runtime, _):
        spec = place.spec("c", "true")
        streams = Streams()
        await runtime.create("c", spec, stdin=False, terminal=False, runtime=RUNC, attach=streams.attach)
        began = time.monotonic()
        assert await runtime.delete("c") is not None
        assert time.monotonic() - began < 1
        assert await streams.end() == b""
        assert await runtime.tasks() == []


def test_the_cgroups_of_a_task_are_told_from_others(root: None) -> None:
    """A task's id may be part of the name of somebody else's cgroup."""
    base = Path("/sys/fs/cgroup", "" if Path("/sys/fs/cgroup/cgroup.procs").exists() else "pids")
    parent = base / f"longshore-test-{os.getpid()}"
    names = ("abc", "docker-abc.scope", "abcd", "xabc", "abc-d.scope", "c")
    parent.mkdir()
    try:
        for name in names:
            (parent / name).mkdir()
        assert [path.name for path in cgroups_of("abc")] == ["abc", "docker-abc.scope"]
    finally:
        for path in (*(parent / name for name in names), parent):
            path.rmdir()


@pytest.mark.parametrize(
    "seen", ["", "fifo/c/init-stdout", "{bundle}", "{bundle}/{shim}", "{bundle}/init.pid"]
)
def test_a_cancelled_create_leaves_nothing(place: Place, seen: str) -> None:
    """Cancelled at once, or as soon as that much of the creation is to be seen below the state directory.

    A shim's address is in a file named `address`, or `bootstrap.json`, which depends on containerd's version.
    """
    sign = seen.format(bundle="daemon/io.containerd.runtime.v2.task/moby/c", shim="[ab][do]*[sn]")

    async def test() -> None:
        async with connected(place) as (runtime, exits):
            spec = place.spec("c", "sleep", "100")
            attach = Streams().attach
            creating = asyncio.create_task(
                runtime.create("c", spec, stdin=False, terminal=False, runtime=RUNC, attach=attach)
            )
            await asyncio.sleep(0)
            while not any(place.base.glob(f"state/{sign}")) and not creating.done():  # noqa: ASYNC110
                await asyncio.sleep(0.0005)
            if creating.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await creating
            else:  # It was done before its sign was seen: nothing is left to cancel.
                await runtime.delete("c")
                exits.events.clear()
            assert await runtime.tasks() == []
            assert not list(place.base.glob("state/daemon/io.containerd.runtime.v2.task/moby/*"))
            streams = await started(runtime, place, "c", "echo", "again")
            assert await streams.end() == b"again\n"
            assert (await exits.of("c")).exit_code == 0

    asyncio.run(test())


@on_loop
async def test_a_containerd_that_cannot_start_is_told(place: Place) -> None:
    (place.base / "root").write_text("in the way of a directory")
    runtime = place.runtime()
    with pytest.raises(EngineError):
        await runtime.connect()
    (place.base / "root").unlink()
    (place.base / "root").mkdir()
    (place.base / "root/io.containerd.content.v1.content").write_text("in the way")
    (place.base / "root/io.containerd.metadata.v1.bolt").write_text("in the way")
    with pytest.raises(EngineError):
        await runtime.connect()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(runtime.version(), 15)


@on_loop
async def test_forty_at_once(place: Place) -> None:
    async with connected(place) as (runtime, exits):
        ids = [f"c{each}" for each in range(40)]
        streams = await asyncio.gather(*(started(runtime, place, id, "echo", id) for id in ids))
        for id, each in zip(ids, streams, strict=True):
            assert await each.end() == f"{id}\n".encode()
            assert (await exits.of(id, timeout=60)).exit_code == 0
        assert len([each for each in exits.events if each.kind == "exit"]) == 40
        await asyncio.gather(*(runtime.delete(id) for id in ids))


@on_loop
async def test_crun(place: Place) -> None:
    async with connected(place) as (runtime, exits):
        streams = Streams()
        options = RuntimeOptions(name="crun", path="crun", root=str(place.base / "crun"))
        spec = place.spec("c", "echo", "crun")
        try:
            await runtime.create(
                "c", spec, stdin=False, terminal=False, runtime=options, attach=streams.attach
            )
        except System as exc:
            bundle = place.base / "bundle"
            bundle.mkdir()
            (bundle / "config.json").write_bytes(spec)
            alone = subprocess.run(  # noqa: ASYNC221
                ["crun", "run", "--bundle", bundle, f"alone-{os.getpid()}"], capture_output=True, text=True
            )
            assert alone.returncode != 0, f"crun runs, but not through containerd: {exc.message}"
            pytest.skip(f"crun cannot run here: {alone.stderr.strip()}")
        await runtime.start("c")
        assert await streams.end() == b"crun\n"
        assert (await exits.of("c")).exit_code == 0
