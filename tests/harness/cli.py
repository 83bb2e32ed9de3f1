"""The unmodified docker CLI, pointed at one daemon and shielded from the user's own configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from harness.patience import PATIENCE


def daemon_message(done: subprocess.CompletedProcess[str]) -> str:
    """What the daemon said, of what a failed command of any CLI printed; empty if the daemon said nothing.

    `docker run` and `create` wrap it: with a hint behind an empty line, or, before release 27, with a full
    stop, then perhaps a hint, and perhaps a line of the CLI's own log.
    """
    before, _, message = done.stderr.partition("Error response from daemon: ")
    message, hint, _ = message.partition("\n\nRun 'docker ")
    if before.endswith("docker: ") and not hint:
        message = message.partition("\ntime=")[0].partition("\nSee 'docker ")[0].strip().removesuffix(".")
    return message.strip()


class DockerCLI:
    """Calls `docker` with arguments: `docker("run", "--rm", "busybox", "true")`."""

    def __init__(self, host: str, config: Path) -> None:
        program = shutil.which("docker")
        if program is None:
            raise FileNotFoundError("there is no docker CLI: run `make setup`")
        self.program = program
        config.mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        self.env = kept | {"DOCKER_HOST": host, "DOCKER_CONFIG": str(config), "HOME": str(config)}

    def __call__(
        self,
        *arguments: str,
        check: bool = True,
        input: str | None = None,
        timeout: float = 60,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; a failure is an AssertionError with the CLI's words, unless `check` is False."""
        done = subprocess.run(
            [self.program, *arguments],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout * PATIENCE,
            env=self.env | (env or {}),
            cwd=cwd,
        )
        if check:
            assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.returncode}\n{done.stderr}"
        return done

    def out(self, *arguments: str, **options: str) -> str:
        """What a successful call prints on stdout, without the last line's end."""
        return self(*arguments, **options).stdout.rstrip("\n")  # type: ignore[arg-type]

    def popen(self, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
        """Start it and leave it running, pipes as `options` say."""
        return subprocess.Popen([self.program, *arguments], env=self.env, **options)  # type: ignore[call-overload,no-any-return]
