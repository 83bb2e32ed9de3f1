"""Programs that administer firewalls, and that may not come to an answer."""

from __future__ import annotations

import subprocess

_LOCKED = "xtables lock"
"""What iptables says when it gives up waiting for others of its kind."""


class Unanswered(OSError):
    """A program does not come to an end, or cannot get at what others are busy with: ask it no more."""


def run_program(*command: str, timeout: float) -> tuple[bool, str]:
    """Whether it succeeds, and what it writes; False also if there is no such program.

    Blocks for at most `timeout` seconds. Raises Unanswered.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise Unanswered(f"{command[0]} does not answer") from None
    except OSError:
        return False, ""
    if done.returncode and _LOCKED in done.stderr:
        raise Unanswered(f"{command[0]}: somebody else holds the {_LOCKED}")
    return done.returncode == 0, done.stdout
