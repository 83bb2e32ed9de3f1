"""What a build says. Stages run beside each other; the client reads them one after the other.

This is the classic builder's text. What BuildKit's clients read instead is `vertexes.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from longshore.build.instructions import Instruction

Message = dict[str, Any]

_AHEAD = 256
"""Messages that may wait, for the client or for a stage's turn, before output is no longer read."""


_RED, _PLAIN = "\x1b[91m", "\x1b[0m"


class Step:
    """One instruction under way. The classic text tells of a step by the stage's other messages."""

    def __init__(self, output: BuildOutput, stage: int) -> None:
        self.output = output
        self.stage = stage

    def wrote(self, descriptor: int, data: bytes) -> None:
        """Its command wrote something to stdout (1) or stderr (2)."""
        text = data.decode("utf-8", "replace")
        self.output.say({"stream": f"{_RED}{text}{_PLAIN}" if descriptor == 2 else text}, self.stage)

    def cached(self) -> None:
        """What it makes was there."""

    def complete(self) -> None:
        """It is done."""

    def fail(self, exc: BaseException) -> None:
        """It came to nothing, or was not let to its end."""


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

    def base(self, stage: int, name: str) -> Step:
        """The stage gets its base image."""
        return Step(self, stage)

    def step(self, stage: int, instruction: Instruction, *, trigger: bool = False) -> Step:
        """The stage begins with an instruction, or with a trigger of its base image."""
        return Step(self, stage)

    def warn(self, text: str, told: str) -> None:
        """Something is not as it should be: `text` in a few words, `told` as the classic builder tells it."""
        self.say({"stream": told})

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
