"""A real terminal for the programs that behave differently in one: a private tmux server."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from harness.patience import PATIENCE


class Terminal:
    """Runs one command in a terminal of `columns` by `rows`; a context manager that ends both.

    with Terminal(["docker", "run", "-it", "busybox"], env) as terminal:
        terminal.wait_for("/ #")
        terminal.type("tty\\n")
    """

    def __init__(
        self, command: list[str], env: Mapping[str, str] | None = None, columns: int = 100, rows: int = 30
    ) -> None:
        self._server = f"longshore-{uuid.uuid4().hex[:12]}"
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "cat", env=env
        )
        self._tmux("set-option", "-g", "remain-on-exit", "on")
        self._tmux("set-option", "-g", "status", "off")
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))
        # tmux itself now and then loses the code of a command whose terminal it has seen closed.
        self._codes = tempfile.TemporaryDirectory(prefix="longshore-terminal-")
        self._code = Path(self._codes.name) / "code"
        written = f"{shlex.join(command)}; echo $? > {self._code}.new; mv {self._code}.new {self._code}"
        self._tmux("respawn-pane", "-k", written)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server", check=False)
        self._codes.cleanup()

    def type(self, text: str) -> None:
        """Send `text` as keys; a line's end is Enter."""
        for number, line in enumerate(text.split("\n")):
            if number:
                self.press("Enter")
            if line:
                self._tmux("send-keys", "-l", "--", line)

    def press(self, *keys: str) -> None:
        """Send keys by tmux's names: Enter, C-c, C-p, Up …"""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self) -> str:
        """What is on the screen now, without trailing blanks."""
        return self._tmux("capture-pane", "-p").rstrip()

    def wait_for(self, text: str, timeout: float = 15) -> str:
        """Wait until `text` is on the screen; an AssertionError shows the screen that lacks it."""
        deadline = time.monotonic() + timeout * PATIENCE
        while text not in (screen := self.screen()):
            assert time.monotonic() < deadline, f"{text!r} did not appear:\n{screen}"
            time.sleep(0.05)
        return screen

    def wait_exit(self, timeout: float = 15) -> int:
        """Wait until the command ended; its exit code."""
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            if self._code.exists():
                return int(self._code.read_text())
            assert time.monotonic() < deadline, f"the command did not end:\n{self.screen()}"
            time.sleep(0.05)

    def _tmux(self, *arguments: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        environment = dict(os.environ if env is None else env)
        environment.pop("TMUX", None)
        environment.setdefault("TERM", "xterm-256color")
        done = subprocess.run(
            ["tmux", "-L", self._server, *arguments], capture_output=True, text=True, env=environment
        )
        if check:
            assert done.returncode == 0, f"tmux {' '.join(arguments)}: {done.stderr}"
        return done.stdout
