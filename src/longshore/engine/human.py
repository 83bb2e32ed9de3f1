"""Times in words, as `docker ps` shows them (docker/go-units HumanDuration)."""

from __future__ import annotations

import time

from longshore.containers.container import Container
from longshore.types.timestamp import SECOND, ZERO_TIME, parse_rfc3339


def human_duration(seconds: float) -> str:
    """`Less than a second`, `5 seconds`, `About a minute`, `3 weeks` …"""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, divisor, unit in (
        (48, 1, "hours"),
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // divisor} {unit}"
    return f"{hours // (24 * 365)} years"


def seconds_since(moment: str) -> float:
    """Seconds since an RFC 3339 time; 0 for "never" and for the future."""
    return 0.0 if moment == ZERO_TIME else max(0, time.time_ns() - parse_rfc3339(moment)) / SECOND


def status_text(container: Container) -> str:
    """The STATUS column of `docker ps`."""
    state = container.state
    if state.Running:
        up = human_duration(seconds_since(state.StartedAt))
        if state.Paused:
            return f"Up {up} (Paused)"
        if state.Restarting:
            ago = human_duration(seconds_since(state.FinishedAt))
            return f"Restarting ({state.ExitCode}) {ago} ago"
        if state.Health is not None and state.Health.Status != "none":
            health = state.Health.Status
            return f"Up {up} ({'health: starting' if health == 'starting' else health})"
        return f"Up {up}"
    if state.RemovalInProgress:
        return "Removal In Progress"
    if state.Dead:
        return "Dead"
    if state.StartedAt == ZERO_TIME:
        return "Created"
    if state.FinishedAt == ZERO_TIME:
        return ""
    return f"Exited ({state.ExitCode}) {human_duration(seconds_since(state.FinishedAt))} ago"
