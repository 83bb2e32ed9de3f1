"""The composition root: builds every part, wires them, restores, serves, shuts down."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import gc
import logging
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import uvloop
from msgspec.structs import replace

from longshore.config import Config
from longshore.engine.exit import on_task_event
from longshore.engine.parts import build_engine
from longshore.engine.reload import reload_configuration
from longshore.engine.restore import restore, start_by_policy
from longshore.engine.shutdown import shutdown
from longshore.engine.userns import Remapping, parse_remapping, remapped_data_root
from longshore.errors import Conflict, EngineError
from longshore.linux.files import write_atomically
from longshore.linux.memory import trim
from longshore.oci.apparmor import ensure_default_profile

TIDY_INTERVAL = 10.0
"""Seconds between looks at what the heap can give back."""

log = logging.getLogger(__name__)

_MODES = {"containers": 0o710, "image": 0o700, "network": 0o750, "tmp": 0o700, "volumes": 0o701}
"""Of the data root's directories, as dockerd has them."""


def run(config: Config) -> int:
    """Be the daemon until a signal ends it. Returns the exit status of the process."""
    try:
        with ExitStack() as held:
            _make_directories(config)
            remapping = parse_remapping(config.userns_remap)
            held.enter_context(pid_file(Path(config.pidfile)))
            held.enter_context(root_lock(Path(config.data_root), "data root"))
            held.enter_context(root_lock(Path(config.exec_root), "exec root"))
            data_root = remapped_data_root(Path(config.data_root), remapping)
            _make_subdirectories(data_root, remapping)
            config = replace(config, data_root=str(data_root))
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(config, remapping))
    except (OSError, EngineError) as exc:
        log.critical("failed to start daemon: %s", exc)
        return 1
    return 0


def _make_directories(config: Config) -> None:
    os.umask(0o022)
    # Remapped engines live below the data root, and each one's containers must pass through.
    data_mode = 0o711 if config.userns_remap else 0o710
    for path, mode in ((Path(config.data_root), data_mode), (Path(config.exec_root), 0o711)):
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        path.chmod(mode)


def _make_subdirectories(root: Path, remapping: Remapping) -> None:
    """What the parts put their directories in, closed to others even if it was there before."""
    for name, mode in _MODES.items():
        if remapping.uids and name in ("containers", "volumes"):
            continue  # Opened to the remapped root already.
        (root / name).mkdir(mode=mode, exist_ok=True)
        (root / name).chmod(mode)


@contextmanager
def pid_file(path: Path) -> Iterator[None]:
    """Hold the pid file. Raises Conflict if the daemon that wrote it is still alive."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(path.read_text())
        if pid != os.getpid() and _is_daemon(pid):
            raise Conflict(
                f"ensure docker is not running or delete {path}: process with PID {pid} is still running"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, str(os.getpid()).encode(), 0o644)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_text() == str(os.getpid()):
                path.unlink()


def _is_daemon(pid: int) -> bool:
    """Whether it is alive, and a daemon: after a crash the number may be anybody's."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"longshored" in command or b"dockerd" in command


@contextmanager
def root_lock(root: Path, what: str) -> Iterator[None]:
    """Keep a second daemon off a root, whatever its pid file. Raises Conflict."""
    opened = os.open(root / "longshore.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(opened, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another daemon uses the {what} {root}") from None
        yield


async def _serve(config: Config, remapping: Remapping) -> None:
    from longshore.api.server import ApiServer

    ended = asyncio.Event()
    _handle_signals(ended)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ApiServer.listen(config))
        engine = await build_engine(config, _identity(Path(config.data_root)), remapping)
        stack.push_async_callback(shutdown, engine)
        engine.runtime.subscribe(lambda event: on_task_event(engine, event))
        await restore(engine)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: reload_configuration(engine))
        await stack.enter_async_context(server.serving(engine))
        if engine.host.apparmor:
            engine.spawn(asyncio.to_thread(ensure_default_profile), "loading of the AppArmor profile")
        engine.spawn(start_by_policy(engine), "starts by restart policy")
        _settle()
        tidying = asyncio.create_task(_tidy_memory())
        stack.callback(tidying.cancel)
        _notify_systemd("READY=1")
        log.info("Daemon has completed initialization")
        await ended.wait()
        _notify_systemd("STOPPING=1")
        log.info("Processing signal: shutting down")


def _identity(data_root: Path) -> str:
    """The daemon's id, made once for a data root (dockerd keeps its own in the same file)."""
    path = data_root / "engine-id"
    with contextlib.suppress(OSError):
        if kept := path.read_text().strip():
            return kept
    made = str(uuid.uuid4())
    write_atomically(path, made.encode(), 0o600)
    return made


def _handle_signals(ended: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    counted = 0

    def end(number: signal.Signals) -> None:
        nonlocal counted
        counted += 1
        ended.set()
        if counted >= 3:
            log.error("forced to exit by a third signal; containers go on running")
            os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # until there is something to reload
    loop.add_signal_handler(signal.SIGPIPE, lambda: None)
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def _settle() -> None:
    """What was built at the start lives as long as the daemon: keep the collector from walking it again."""
    gc.collect()
    gc.freeze()


async def _tidy_memory() -> None:
    """Give back what loading an image or reading a long log has left in the heap, once in a while."""
    while True:
        await asyncio.sleep(TIDY_INTERVAL)
        await asyncio.to_thread(trim)


def _notify_systemd(state: str) -> None:
    """sd_notify(3), where systemd asked for it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
