"""Pull an image from a registry."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from longshore.engine.engine import Engine
from longshore.errors import Forbidden
from longshore.images.reference import Reference, parse, with_tag
from longshore.layers.layerdb import DIGEST
from longshore.types.registry import AuthConfig

Message = dict[str, Any]


async def image_pull(
    engine: Engine, image: str, tag: str = "", platform: str = "", auth: AuthConfig | None = None
) -> AsyncIterator[Message]:
    """POST /images/create?fromImage=: progress messages.

    `tag` may be a digest; without either, every tag of the repository is pulled. When nobody takes the
    messages any more the pull ends, and leaves nothing. Raises InvalidParameter.
    """
    from longshore.images.registry.platforms import parse_platform

    reference = pull_reference(image, tag)
    wanted = parse_platform(platform) if platform else None

    async def work(emit: Callable[[Message], None]) -> None:
        await engine.registry.pull(reference, wanted, auth or AuthConfig(), emit)
        log_registry_event(engine, "pull", reference)

    return messages_while(work)


def pull_reference(image: str, tag: str) -> Reference:
    """The name that a client means by its two parameters. Raises InvalidParameter."""
    reference = parse(image.removesuffix(":"))  # `docker pull -a` may send a colon without a tag.
    if DIGEST.fullmatch(tag):
        reference = reference._replace(tag="", digest=tag)
    elif tag:
        reference = with_tag(reference._replace(digest=""), tag)
    if reference.familiar_name == "scratch":
        raise Forbidden("'scratch' is a reserved name")
    return reference


async def messages_while(
    work: Callable[[Callable[[Message], None]], Awaitable[None]],
) -> AsyncIterator[Message]:
    """What `work(emit)` emits, on the event loop, until it ends; its error is raised last.

    Work that nobody listens to any more is cancelled.
    """
    messages: asyncio.Queue[Message | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(messages.put_nowait)
        finally:
            # Threads may have said something that is still on its way here.
            asyncio.get_running_loop().call_soon(messages.put_nowait, None)

    task = asyncio.create_task(run(), name="registry transfer")
    try:
        while (message := await messages.get()) is not None:
            yield message
        await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def log_registry_event(engine: Engine, action: str, reference: Reference) -> None:
    """Tell listeners of a pull or push, with the image's labels."""
    labels = {}
    with contextlib.suppress(Exception):
        labels = engine.images.resolve(reference.familiar).labels
    engine.events.publish("image", action, reference.familiar, {**labels, "name": reference.familiar_name})
