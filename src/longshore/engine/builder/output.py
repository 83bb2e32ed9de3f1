"""What a build says. Stages run beside each other; the client reads them one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

Message = dict[str, Any]

_AHEAD = 256
"""Messages that may wait, for the client or for a stage's turn, before output is no longer read."""


class BuildOutput:
    """Messages of all stages, in the order of the Dockerfile. Owned by the event loop's thread."""

    def __init__(self) -> None:
        self._ready: deque[Message] = deque()
        self._held: dict[int, list[Message]] = {}
        self._done: set[int] = set()
        self._waiters: set[asyncio.Event] = set()
        self._ended = False

    def expect(self, stage: int) -> None:
        """The stage will have something to say."""
        self._held = dict(sorted({**self._held, stage: []}.items()))

    def say(self, message: Message, stage: int | None = None) -> None:
        """Queue a message; one of a stage waits for the stage's turn."""
        if stage is None or stage == next(iter(self._held), None):
            self._ready.append(message)
        elif stage in self._held:
            self._held[stage].append(message)
        self._wake()

    def stage_ended(self, stage: int) -> None:
        """The stage has said all. What it said is shown once all stages before it have ended."""
        self._done.add(stage)
        while (first := next(iter(self._held), None)) is not None and first in self._done:
            del self._held[first]
            following = next(iter(self._held), None)
            if following is not None:
                self._ready += self._held[following]
                self._held[following].clear()
        self._wake()

    async def room(self, stage: int) -> None:
        """Wait until a stage may say more, so that no memory fills for a client that is slow."""
        while len(self._ready) >= _AHEAD or len(self._held.get(stage, ())) >= _AHEAD:
            await self._change()

    def end(self) -> None:
        """Nothing more will come; what stages hold back is shown now."""
        for held in self._held.values():
            self._ready += held
        self._held = {}
        self._ended = True
        self._wake()

    async def messages(self) -> AsyncIterator[Message]:
        """Everything, in order, until the end."""
        while True:
            while self._ready:
                message = self._ready.popleft()
                if len(self._ready) == _AHEAD - 1:
                    self._wake()
                yield message
            if self._ended:
                return
            await self._change()

    async def _change(self) -> None:
        event = asyncio.Event()
        self._waiters.add(event)
        try:
            await event.wait()
        finally:
            self._waiters.discard(event)

    def _wake(self) -> None:
        for event in self._waiters:
            event.set()
