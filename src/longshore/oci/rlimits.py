"""Resource limits of the first process; see setrlimit(2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from longshore.errors import System
from longshore.linux.host import HostFacts
from longshore.types.container import HostConfig
from longshore.types.resources import Ulimit

_UNLIMITED = 2**64 - 1


def rlimits(host_config: HostConfig, defaults: Iterable[Ulimit], host: HostFacts) -> list[dict[str, Any]]:
    """The user's limits, then the daemon's defaults for what he did not name.

    Without CAP_SYS_RESOURCE nobody may raise a hard limit: defaults are then cut to what is allowed, and a
    limit that was asked for raises System.
    """
    asked = list(host_config.Ulimits or [])
    names = {limit.Name for limit in asked}
    result = []
    for limit in asked:
        hard, allowed = _value(limit.Hard), _allowed(limit.Name, host)
        if hard > allowed:
            raise System(
                f"cannot set ulimit {limit.Name} to a hard limit of {limit.Hard}: the daemon's own is "
                f"{allowed}, and without CAP_SYS_RESOURCE it cannot be raised"
            )
        result.append(_rlimit(limit.Name, _value(limit.Soft), hard))
    for limit in defaults:
        if limit.Name not in names:
            allowed = _allowed(limit.Name, host)
            result.append(
                _rlimit(limit.Name, min(_value(limit.Soft), allowed), min(_value(limit.Hard), allowed))
            )
    return result


def _allowed(name: str, host: HostFacts) -> int:
    if host.has_capability("CAP_SYS_RESOURCE") or name not in host.rlimits:
        return _UNLIMITED
    return _value(host.rlimits[name][1])


def _value(number: int) -> int:
    return _UNLIMITED if number < 0 else number


def _rlimit(name: str, soft: int, hard: int) -> dict[str, Any]:
    return {"type": f"RLIMIT_{name.upper()}", "hard": hard, "soft": soft}
