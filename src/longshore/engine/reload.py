"""Read the configuration file again (SIGHUP)."""

from __future__ import annotations

import logging

import msgspec

from longshore.config import reload
from longshore.engine.engine import Engine
from longshore.errors import EngineError

log = logging.getLogger(__name__)


def reload_configuration(engine: Engine) -> None:
    """Take over what changed in daemon.json and may change while running; keep all if it is not right."""
    try:
        config, changed = reload(engine.config, engine.config.config_file)
    except EngineError as exc:
        log.error("the configuration was not reloaded: %s", exc)
        return
    engine.config = config
    if "debug" in changed:
        logging.getLogger().setLevel(logging.DEBUG if config.debug else config.log_level.upper())
    values = {name: _shown(getattr(config, name)) for name in changed}
    engine.events.publish("daemon", "reload", engine.id, {"name": engine.host.hostname, **values})
    log.info("Reloaded configuration: %s", ", ".join(f"{k}={v}" for k, v in values.items()) or "no change")


def _shown(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
