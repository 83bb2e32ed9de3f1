"""`docker build --build-context name=…`: images and directories that a Dockerfile refers to by names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from longshore.build.stages import Program
from longshore.errors import InvalidParameter
from longshore.images.reference import parse as parse_reference

if TYPE_CHECKING:
    from longshore.engine.builder.clientcontext import ClientContext

_IMAGE, _LOCAL = "docker-image://", "local:"


class NamedContexts:
    """The contexts of one build, by name. `client` is whom directories are fetched from."""

    def __init__(self, contexts: Mapping[str, str], client: ClientContext | None) -> None:
        """Raises InvalidParameter for a kind that is not supported."""
        self._images: dict[str, str] = {}
        self._directories: dict[str, str] = {}
        self._roots: dict[str, asyncio.Task[Path]] = {}
        self._client = client
        for name, value in contexts.items():
            key = _key(name.partition("::")[0])
            if value.startswith(_IMAGE):
                self._images[key] = value.removeprefix(_IMAGE)
            elif value.startswith(_LOCAL) and client is not None:
                self._directories[key] = value.removeprefix(_LOCAL)
            else:
                raise InvalidParameter(
                    f"unsupported build context {name}={value}: images and directories can be"
                )

    def image(self, name: str) -> str:
        """What `name` stands for, if it stands for an image; else the name itself."""
        return self._images.get(_key(name), name)

    async def root(self, name: str) -> Path | None:
        """The directory called `name`, which is fetched when it is first asked for; None if there is none.

        Raises InvalidParameter, System, Unavailable.
        """
        key = _key(name)
        if key not in self._directories or self._client is None:
            return None
        if key not in self._roots:
            work = self._client.directory(self._directories[key])
            self._roots[key] = asyncio.create_task(work, name="build context")
        return await asyncio.shield(self._roots[key])

    def apply(self, program: Program) -> None:
        """Let images stand for the stages of their names. Raises InvalidParameter for a directory as base."""
        for stage in program.stages:
            if _key(stage.begin.base) in self._directories:
                raise InvalidParameter(f"a directory cannot be what a stage begins with: {stage.begin.base}")
            if stage.begin.name and (image := self.image(stage.begin.name)) != stage.begin.name:
                stage.begin = replace(stage.begin, base=image)
                stage.instructions.clear()
                del stage.lines[1:]

    def tasks(self) -> list[asyncio.Task[Path]]:
        """What is under way."""
        return list(self._roots.values())


def _key(name: str) -> str:
    with suppress(InvalidParameter):
        return parse_reference(name.lower()).familiar.removesuffix(":latest")
    return name.lower()
