"""Checkpoints as the Engine API describes them."""

from __future__ import annotations

from longshore.types.codec import ApiStruct


class CheckpointCreateRequest(ApiStruct):
    """Body of POST /containers/{id}/checkpoints. An empty directory is the container's own."""

    CheckpointID: str = ""
    CheckpointDir: str = ""
    Exit: bool = False


class CheckpointSummary(ApiStruct):
    """One checkpoint in a list."""

    Name: str
