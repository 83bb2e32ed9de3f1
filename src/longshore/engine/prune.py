"""Remove every container that does not run."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from datetime import datetime

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.human import seconds_since
from longshore.engine.inspect import container_size
from longshore.engine.remove import container_remove
from longshore.errors import EngineError, InvalidParameter
from longshore.types.codec import ApiStruct


class ContainersPruneResponse(ApiStruct):
    """Answer to POST /containers/prune. Space in bytes."""

    ContainersDeleted: list[str] | None = None
    SpaceReclaimed: int = 0


async def containers_prune(engine: Engine, filters: Mapping[str, Collection[str]]) -> ContainersPruneResponse:
    """POST /containers/prune. Raises InvalidParameter for a filter that does not exist."""
    for key in filters:
        if key not in ("label", "label!", "until"):
            raise InvalidParameter(f"invalid filter '{key}'")
    until = [parse_until(value) for value in filters.get("until", ())]
    report = ContainersPruneResponse()
    for container in engine.containers:
        if container.state.Running or not _matches(container, filters):
            continue
        if any(time.time() - seconds_since(container.record.Created) >= moment for moment in until):
            continue
        try:
            size, _ = await container_size(engine, container)
            await container_remove(engine, container.id)
        except (OSError, EngineError):
            continue  # Started or removed meanwhile.
        report.ContainersDeleted = [*(report.ContainersDeleted or []), container.id]
        report.SpaceReclaimed += size
    engine.events.publish("container", "prune", "", {"reclaimed": str(report.SpaceReclaimed)})
    return report


def parse_until(text: str) -> float:
    """A time as Docker takes it for `until`: a duration back from now, a date, or seconds since the epoch.

    Returns seconds since the epoch. Raises InvalidParameter.
    """
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    if text and text[-1] in units:
        total, number = 0.0, ""
        for character in text:
            if character in units:
                total += _number(number, text) * units[character]
                number = ""
            else:
                number += character
        return time.time() - total
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone().timestamp()
    except ValueError:
        raise InvalidParameter(f'parsing time "{text}": it is neither a duration nor a date') from None


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidParameter(f'time: invalid duration "{whole}"') from None


def _matches(container: Container, filters: Mapping[str, Collection[str]]) -> bool:
    labels = container.config.Labels or {}

    def has(wanted: str) -> bool:
        key, equals, value = wanted.partition("=")
        return key in labels and (not equals or labels[key] == value)

    return all(has(wanted) for wanted in filters.get("label", ())) and not any(
        has(unwanted) for unwanted in filters.get("label!", ())
    )
