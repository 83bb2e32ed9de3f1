"""Push an image to its registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from longshore.engine.engine import Engine
from longshore.engine.images import check_platform
from longshore.engine.pull import log_registry_event, messages_while
from longshore.images.reference import parse, with_tag
from longshore.types.registry import AuthConfig

Message = dict[str, Any]


async def image_push(
    engine: Engine, image: str, tag: str, auth: AuthConfig, platform: str = ""
) -> AsyncIterator[Message]:
    """POST /images/{name}/push: progress messages; without a tag, every tag of the repository is pushed.

    When nobody takes the messages any more the push ends. Raises InvalidParameter, NotFound if the image is
    for another platform than asked for.
    """
    reference = parse(image)
    if tag:
        reference = with_tag(reference._replace(digest=""), tag)
    check_platform(engine, reference.familiar, platform)

    async def work(emit: Callable[[Message], None]) -> None:
        await engine.registry.push(reference, auth, emit)
        log_registry_event(engine, "push", reference)

    return messages_while(work)
