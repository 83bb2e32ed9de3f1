"""What happened, to whoever listens: the source of `docker events`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import UTC, datetime, timedelta

from longshore.errors import InvalidParameter
from longshore.types.events import Actor, EventMessage

log = logging.getLogger(__name__)

HISTORY = 256
"""Events kept for those who ask for the past; as many as dockerd keeps."""
BACKLOG = 1024
"""Events a subscriber may lag behind before it is dropped."""

Filters = Mapping[str, Collection[str]]
"""Filter names to the values accepted for each; sets given as maps to true are collections too."""


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
        since the epoch with an optional fraction, RFC 3339 times, or durations before now (`10m`, `1h30m`).
        A subscriber that falls too far behind sees its stream end. Raises InvalidParameter.
        """
        began = parse_timestamp(since) if since else None
        end = parse_timestamp(until) if until else None
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
        and _exact(filters.get("type"), message.Type)
        and (not filters.get("scope") or message.scope in filters["scope"])
        and all(_named(filters.get(kind), message) for kind in _NAMED)
        and _image_matches(filters.get("image"), message)
        and _labels_match(filters.get("label"), actor.Attributes)
    )


_NAMED = ("container", "plugin", "volume", "network", "daemon", "node", "service", "secret", "config")


def _event_matches(wanted: Collection[str] | None, action: str) -> bool:
    # `exec_create: sh` and `health_status: healthy` are also found by what stands before the colon.
    return not wanted or action in wanted or (":" in action and action.split(":", 1)[0] in wanted)


def _exact(wanted: Collection[str] | None, value: str) -> bool:
    return not wanted or value in wanted


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


def _labels_match(wanted: Collection[str] | None, attributes: Mapping[str, str]) -> bool:
    for label in wanted or ():
        key, equals, value = label.partition("=")
        if key not in attributes or (equals and attributes[key] != value):
            return False
    return True


_UNITS = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "ns": 1}
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)(h|ms|m|s|us|µs|ns)")
_FRACTION = re.compile(r"\.([0-9]{1,9})[0-9]*")
_UNIX = re.compile(r"([0-9]+)(?:\.([0-9]{1,9})[0-9]*)?")


def parse_timestamp(text: str) -> int:
    """Nanoseconds since the epoch of a time as Docker's API takes it; see `EventBus.subscribe`.

    Raises InvalidParameter.
    """
    unix = _UNIX.fullmatch(text)
    if unix:
        return int(unix[1]) * 10**9 + int((unix[2] or "").ljust(9, "0"))
    sign, duration = (-1, text[1:]) if text.startswith("-") else (1, text)
    if duration and _DURATION.sub("", duration) == "":
        ago = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(duration))
        return time.time_ns() - sign * int(ago)
    try:
        # datetime knows microseconds only: the fraction is read apart.
        moment = datetime.fromisoformat(_FRACTION.sub("", text, count=1))
    except ValueError:
        raise InvalidParameter(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    fraction = _FRACTION.search(text)
    nanoseconds = int(fraction[1].ljust(9, "0")) if fraction else 0
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) * 10**9 + nanoseconds
