"""Daemons under test: longshored, and dockerd as the oracle it is compared with.

Each has data and exec roots of its own under one temporary directory, so several run beside each other.
An isolated daemon also has network, mount and process namespaces of its own: whatever it leaves there goes
when it ends, which is how the oracle leaves no bridge, no iptables chain and no mount behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from harness.cli import DockerCLI
from harness.http import Client
from harness.machine import cgroups_under, mounts_under, processes_of
from harness.patience import PATIENCE

WARM_SANDBOXES = 4
"""Network namespaces that longshored keeps ready by default."""
START_TIMEOUT = 40.0 * PATIENCE
STOP_TIMEOUT = 30.0 * PATIENCE


class StartFailure(Exception):
    """The daemon did not come up; the text ends with the tail of its log."""


class Namespaces:
    """Network, mount and process namespaces for several daemons, one after the other, and what they leave."""

    def __init__(self) -> None:
        # Shared as systemd has it: or dockerd would mount its data root anew, over what others have mounted.
        script = "mount --make-rshared /; ip link set lo up; echo; exec tini -s -- sleep infinity"
        self.process = subprocess.Popen([*_NAMESPACES, "sh", "-c", script], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        self.prefix = ["nsenter", "-t", children.split()[0], "--net", "--mount", "--pid", "--"]

    def close(self) -> None:
        """End all that runs in them."""
        self.process.kill()
        self.process.communicate()


class Daemon:
    """One daemon and its roots. `start`, then `client`, `docker`, `sdk()`; in the end `destroy`."""

    kind: ClassVar[str]
    program: ClassVar[list[str]]

    def __init__(self, *flags: str, isolated: bool = False, env: dict[str, str] | None = None) -> None:
        self.flags = flags
        self.isolated = isolated
        self.env = env or {}
        self.root = Path(tempfile.mkdtemp(prefix=f"lsh-{self.kind}-"))
        self.root.chmod(0o711)
        self.data_root = self.root / "data"
        self.exec_root = self.root / "exec"
        self.socket = self.root / "docker.sock"
        self.log = self.root / "log"
        self.client = Client(self.socket, version="")
        self.docker = DockerCLI(self.host, self.root / "config")
        self.process: subprocess.Popen[bytes] | None = None
        self.namespaces: Namespaces | None = None
        """Where an isolated daemon runs, if not in namespaces of its own."""

    @property
    def host(self) -> str:
        """What DOCKER_HOST is set to."""
        return f"unix://{self.socket}"

    @property
    def cgroup(self) -> str:
        """A cgroup parent that no other daemon uses."""
        return f"/{self.root.name}"

    def command(self) -> list[str]:
        """The daemon's command line, without the namespaces around it."""
        return [
            *self.program,
            *("--data-root", str(self.data_root)),
            *("--exec-root", str(self.exec_root)),
            *("-H", self.host),
            *("-p", str(self.root / "pid")),
            *self.flags,
        ]

    def start(self) -> None:
        """Start it and wait until it answers; StartFailure if it does not."""
        command = self.command()
        if self.namespaces is not None:
            command = [*self.namespaces.prefix, *command]
        elif self.isolated:
            command = [*_NAMESPACES, "sh", "-c", 'ip link set lo up; exec tini -- "$@"', "sh", *command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_clean_environment() | self.env,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self.answers():
            if self.process.poll() is not None:
                raise StartFailure(f"{self.kind} exited with {self.process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StartFailure(f"{self.kind} does not answer:\n{self.tail()}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether a ping comes back."""
        try:
            return Client(self.socket, "", timeout=5).get("/_ping").status == 200
        except OSError:
            return False

    @property
    def pid(self) -> int:
        """The daemon's own process, as the machine numbers it."""
        assert self.process is not None, "the daemon was not started"
        if not self.isolated:
            return self.process.pid
        for pid in processes_of(str(self.root)):  # unshare and tini are its ancestors
            name = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
            if Path(name.decode()).name == self.program[0]:
                return pid
        raise ProcessLookupError(f"{self.kind} is not running")

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would; containers are left as they are, unless it is isolated."""
        assert self.process is not None
        if self.namespaces is not None:
            os.kill(self.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it with SIGTERM and wait; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"{self.kind} did not stop on SIGTERM:\n{self.tail()}") from None

    def restart(self) -> None:
        """Stop it in order and start it again on the same roots."""
        self.stop()
        self.start()

    def reset(self) -> None:
        """Remove every container, and the volumes and networks that tests made; images stay."""
        api = Client(self.socket, "")
        for container in api.get("/containers/json", all=1).json:
            api.delete(f"/containers/{container['Id']}", force=1, v=1)
        # Networks of settings last: others may have taken theirs.
        for network in sorted(api.get("/networks").json, key=lambda one: bool(one.get("ConfigOnly"))):
            if network["Name"] not in ("bridge", "host", "none"):
                api.delete(f"/networks/{network['Id']}")
        for volume in api.get("/volumes").json["Volumes"] or []:
            api.delete(f"/volumes/{volume['Name']}", force=1)

    def destroy(self) -> None:
        """Remove what runs, stop the daemon and delete its roots: all that its user would do, no more.

        What the daemon leaves on the machine after that is its fault, and for the machine fixture to find.
        """
        if self.process is not None and self.process.poll() is None:
            with suppress(OSError):
                self.reset()
            self.stop()
        if not mounts_under(self.root):
            shutil.rmtree(self.root, ignore_errors=True)

    def sweep(self) -> None:
        """Remove by force what is left of it on the machine. Only for after the machine was compared."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for _ in range(20):
            left = processes_of(str(self.root))
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.1)
        for mount in reversed(mounts_under(self.root)):
            subprocess.run(["umount", "-l", mount], capture_output=True)
        for cgroup in reversed(cgroups_under(self.root.name)):
            with suppress(OSError):
                cgroup.rmdir()
        shutil.rmtree(self.root, ignore_errors=True)

    def load(self, archive: Path) -> None:
        """Load an image archive over the API."""
        with archive.open("rb") as file:
            answer = Client(self.socket, "").request(
                "POST",
                "/images/load",
                file,
                query={"quiet": 1},
                headers={"Content-Type": "application/x-tar"},
            )
        answer.expect(200)
        assert b'"error"' not in answer.body, answer.body

    def sdk(self, **options: object) -> object:
        """A `docker.DockerClient` of the Python SDK for this daemon; the caller closes it."""
        import docker

        return docker.DockerClient(base_url=self.host, **options)

    def nsenter(self, *command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a command where the daemon's network is: in its namespace if isolated, else plainly."""
        prefix = ["nsenter", "--net", "-t", str(self.pid)] if self.isolated else []
        return subprocess.run([*prefix, *command], capture_output=True, text=True, timeout=timeout * PATIENCE)

    def namespaces_left(self) -> list[str]:
        """Network namespaces, unless they come to be just those that an idle longshored keeps ready."""
        deadline = time.monotonic() + START_TIMEOUT
        while len(found := [str(path) for path in (self.exec_root / "netns").glob("*")]) != WARM_SANDBOXES:
            if time.monotonic() > deadline:
                return found
            time.sleep(0.02)
        return []

    def tail(self, lines: int = 60) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


_NAMESPACES = [
    "unshare",
    *("--net", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc"),
]


def _clean_environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "NOTIFY_"))}
    return kept | {"PATH": f"{kept.get('PATH', '')}:/usr/sbin:/sbin"}


class Longshored(Daemon):
    """The daemon of this checkout."""

    kind = "longshored"
    program: ClassVar[list[str]] = [sys.executable, "-m", "longshore.cli.longshored"]

    @property
    def pid(self) -> int:
        if not self.isolated:
            return super().pid
        for pid in processes_of(str(self.root)):
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if argv[1:3] == [b"-m", b"longshore.cli.longshored"]:
                return pid
        raise ProcessLookupError("longshored is not running")


class Dockerd(Daemon):
    """The machine's dockerd, isolated unless said otherwise."""

    kind = "dockerd"
    program: ClassVar[list[str]] = ["dockerd"]

    def __init__(self, *flags: str, isolated: bool = True, env: dict[str, str] | None = None) -> None:
        super().__init__(*flags, isolated=isolated, env=env)
        self.config = self.root / "daemon.json"  # the user's /etc/docker/daemon.json is not ours to obey
        self.config.write_text("{}")
        parent = (
            ()
            if any(flag.startswith("--cgroup-parent") for flag in flags)
            else ("--cgroup-parent", self.cgroup)
        )
        self.flags = ("--config-file", str(self.config), *parent, *flags)

    @staticmethod
    def missing() -> str | None:
        """Why it cannot run here, or None."""
        if os.geteuid() != 0:
            return "dockerd needs root"
        if shutil.which("dockerd") is None:
            return "dockerd is not installed; `make setup` unpacks it"
        return None

    def destroy(self) -> None:
        """As for any daemon; its own leavings on the machine (cgroups) are swept, it is not under test."""
        super().destroy()
        self.sweep()
