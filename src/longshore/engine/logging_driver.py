"""A container's log: which driver, opened with what it needs to know of the container."""

from __future__ import annotations

import asyncio
from pathlib import Path

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.errors import EngineError, System
from longshore.logs.driver import LogDriver, create_log_driver, is_remote
from longshore.logs.info import LogInfo, log_path
from longshore.logs.pump import Keep


async def open_log(engine: Engine, container: Container, *, running: bool = False) -> LogDriver | None:
    """Open the container's log for a run; None if it keeps none.

    A peer that cannot be reached is an error unless the container is `running` already. Raises System,
    also for a bad value of an option: dockerd looks at most of them only now.
    """
    config = container.host_config.LogConfig
    path = log_path(config.Type, container.root, container.id, config.Config)
    container.record.LogPath = str(path) if config.Type == "json-file" else ""
    options, info = config.Config or {}, log_info(container, path)
    info.must_connect = not running
    try:
        if is_remote(config.Type):
            driver = await asyncio.to_thread(create_log_driver, config.Type, options, info)
        else:
            driver = create_log_driver(config.Type, options, info)
    except (OSError, EngineError) as exc:
        message = "failed to create task for container: failed to initialize logging driver: "
        raise System(message + str(exc)) from exc
    if driver is not None:
        engine.logs[container.id] = driver
    return driver


def keep_output(engine: Engine, container: Container, *, resume: bool = False) -> Keep:
    """Where the output of a run is kept until it is in its log; `resume` a run that another daemon began."""
    return Keep(engine.exec_root / "output" / container.id, resume)


def log_info(container: Container, path: Path | None) -> LogInfo:
    """The container as its log driver sees it."""
    return LogInfo(
        container_id=container.id,
        container_name=container.record.Name,
        log_path=path or container.root / "log",
        image_id=container.record.Image,
        image_name=container.config.Image,
        command=" ".join([container.record.Path, *container.record.Args]),
        created=container.record.Created,
        env=list(container.config.Env or []),
        labels=dict(container.config.Labels or {}),
    )
