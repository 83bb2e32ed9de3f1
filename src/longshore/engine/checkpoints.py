"""Where a container's checkpoints lie."""

from __future__ import annotations

import re
from pathlib import Path

from longshore.containers.container import Container
from longshore.errors import InvalidParameter, NotFound, System

NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")


def checkpoint_path(container: Container, name: str, directory: str) -> Path | None:
    """The checkpoint to start from; None if none was asked for.

    Raises InvalidParameter for a bad name, NotFound if there is no such checkpoint.
    """
    if not name:
        return None
    if not NAME.match(name):
        raise InvalidParameter(f"invalid checkpoint ID ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    path = (Path(directory) if directory else container.root / "checkpoints") / name
    if not path.exists():
        raise NotFound(f"checkpoint {name} does not exist for container {container.name}")
    if not path.is_dir():
        raise System(f"{path} exists and is not a directory")
    return path
