"""What happened, to whoever listens: the source of `docker events`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping

from longshore.errors import InvalidParameter
from longshore.types.events import Actor, EventMessage
from longshore.types.filters import Filters, exactly, has_labels
from longshore.types.timestamp import parse_unix

log = logging.getLogger(__name__)

HISTORY = 256
"""Events kept for those who ask for the past; as many as dockerd keeps."""
BACKLOG = 1024
"""Events a subscriber may lag behind before it is dropped."""


class EventBus:
    """Publishes to any number of subscribers, none of whom can hold up the publisher. Owned by one loop."""

    def __init__(self) -> None:
        self._history: deque[EventMessage] = deque(maxlen=HISTORY)
        self._subscribers: set[_Subscriber] = set()
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many subscribe now."""
        return len(self._subscribers)

    def publish(
        self, type: str, action: str, actor_id: str, attributes: Mapping[str, str], scope: str = "local"
    ) -> None:
        """Tell that `action` happened to the object `actor_id` of `type`, now."""
        now = time.time_ns()
        message = EventMessage(
            Type=type,
            Action=action,
            Actor=Actor(ID=actor_id, Attributes=dict(sorted(attributes.items()))),
            scope=scope,
            time=now // 10**9,
            timeNano=now,
        )
        if type == "container":
            message.status, message.id = action, actor_id
            message.from_ = attributes.get("image", "")
        elif type == "image":
            message.status, message.id = action, actor_id
        self._history.append(message)
        for subscriber in tuple(self._subscribers):
            if not subscriber.offer(message):
                log.warning("dropped a listener to events that lagged %d behind", BACKLOG)
                self._subscribers.discard(subscriber)

    def subscribe(self, filters: Filters, since: str = "", until: str = "") -> AsyncIterator[EventMessage]:
        """Events that pass `filters`: those kept since `since` if it is given, then new ones until `until`.

        Listening begins with the call, not with the first event asked for. `since` and `until` are seconds
        since the epoch with an optional fraction: clients translate dates and durations themselves.
        A subscriber that falls too far behind sees its stream end. Raises InvalidParameter.
        """
        began = parse_unix(since) if since else None
        end = parse_unix(until) if until else None
        if began is not None and end is not None and end < began:
            raise InvalidParameter(f"`since` time ({since}) cannot be after `until` time ({until})")
        subscriber = _Subscriber(filters)
        if began is not None or end is not None:
            for message in self._history:
                if message.timeNano >= (began or 0) and (end is None or message.timeNano <= end):
                    subscriber.offer(message)
        if self._closed or (end is not None and end <= time.time_ns()):
            subscriber.finish()
        else:
            self._subscribers.add(subscriber)
        return self._messages(subscriber, end)

    def close(self) -> None:
        """End every subscriber's stream once it has what was published so far."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.finish()
        self._subscribers.clear()

    async def _messages(self, subscriber: _Subscriber, end: int | None) -> AsyncIterator[EventMessage]:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if end is None else (end - time.time_ns()) / 1e9) as limit:
                    if subscriber.finished:
                        limit.reschedule(None)
                    while (message := await subscriber.next()) is not None:
                        yield message
        finally:
            self._subscribers.discard(subscriber)


class _Subscriber:
    """One listener's filter and the events it has yet to take."""

    def __init__(self, filters: Filters) -> None:
        self._filters = filters
        self._waiting: deque[EventMessage] = deque()
        self._wake = asyncio.Event()
        self.finished = False

    def offer(self, message: EventMessage) -> bool:
        """Queue `message` if it is wanted; False if there is no room, which is the subscriber's end."""
        if not matches(self._filters, message):
            return True
        if len(self._waiting) >= BACKLOG:
            self.finish()
            return False
        self._waiting.append(message)
        self._wake.set()
        return True

    def finish(self) -> None:
        """No more will come."""
        self.finished = True
        self._wake.set()

    async def next(self) -> EventMessage | None:
        while not self._waiting:
            if self.finished:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self._waiting.popleft()


def matches(filters: Filters, message: EventMessage) -> bool:
    """Whether `message` passes every filter (moby daemon/events/filter.go)."""
    actor = message.Actor
    return (
        _event_matches(filters.get("event"), message.Action)
        and exactly(filters, "type", message.Type)
        and exactly(filters, "scope", message.scope)
        and all(_named(filters.get(kind), message) for kind in _NAMED)
        and _image_matches(filters.get("image"), message)
        and has_labels(actor.Attributes, filters.get("label", ()))
    )


_NAMED = ("container", "plugin", "volume", "network", "daemon", "node", "service", "secret", "config")


def _event_matches(wanted: Collection[str] | None, action: str) -> bool:
    # `exec_create: sh` and `health_status: healthy` are also found by what stands before the colon.
    return not wanted or action in wanted or (":" in action and action.split(":", 1)[0] in wanted)


def _named(wanted: Collection[str] | None, message: EventMessage) -> bool:
    # As in dockerd the type of the event plays no part: `container=web` also finds a network called web.
    prefixes = tuple(wanted or ())
    return not prefixes or any(
        name.startswith(prefixes) for name in (message.Actor.ID, message.Actor.Attributes.get("name", ""))
    )


def _image_matches(wanted: Collection[str] | None, message: EventMessage) -> bool:
    if not wanted:
        return True
    attribute = "name" if message.Type == "image" else "image"
    name = message.Actor.Attributes.get(attribute, "")
    candidates = {message.Actor.ID, name, _without_tag(message.Actor.ID), _without_tag(name)}
    return not candidates.isdisjoint(wanted)


def _without_tag(reference: str) -> str:
    name = reference.split("@", 1)[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.split(":", 1)[0]
