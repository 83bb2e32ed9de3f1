"""Remove every container that does not run."""

from __future__ import annotations

from longshore.engine.engine import Engine
from longshore.engine.inspect import container_size
from longshore.engine.remove import container_remove
from longshore.errors import EngineError
from longshore.types.codec import ApiStruct
from longshore.types.filters import Filters, check_filters, labels_match, until_filter


class ContainersPruneResponse(ApiStruct):
    """Answer to POST /containers/prune. Space in bytes."""

    ContainersDeleted: list[str] | None = None
    SpaceReclaimed: int = 0


async def containers_prune(engine: Engine, filters: Filters) -> ContainersPruneResponse:
    """POST /containers/prune. Raises InvalidParameter for a filter that does not exist."""
    check_filters(filters, ("label", "label!", "until"))
    until = until_filter(filters)
    report = ContainersPruneResponse()
    for container in engine.containers:
        if container.state.Running or not labels_match(filters, container.config.Labels):
            continue
        if until is not None and container.created > until:
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
