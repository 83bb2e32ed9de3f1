"""A container's log: which driver, opened with what it needs to know of the container."""

from __future__ import annotations

from pathlib import Path

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.logs.driver import LogDriver, create_log_driver
from longshore.logs.info import LogInfo, log_path


def open_log(engine: Engine, container: Container) -> LogDriver | None:
    """Open the container's log for a run; None if it keeps none. Raises InvalidParameter, OSError."""
    config = container.host_config.LogConfig
    path = log_path(config.Type, container.root, container.id)
    container.record.LogPath = str(path) if config.Type == "json-file" else ""
    driver = create_log_driver(config.Type, config.Config or {}, log_info(container, path))
    if driver is not None:
        engine.logs[container.id] = driver
    return driver


def log_info(container: Container, path: Path | None) -> LogInfo:
    """The container as its log driver sees it."""
    return LogInfo(
        container_id=container.id,
        container_name=container.record.Name,
        log_path=path or container.root / "log",
        image_id=container.record.Image,
        image_name=container.config.Image,
        created=container.record.Created,
        env=list(container.config.Env or []),
        labels=dict(container.config.Labels or {}),
    )
