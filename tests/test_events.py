"""The event bus: filters, history, and subscribers that are slow."""

from __future__ import annotations

import asyncio
import time

import pytest

from longshore.errors import InvalidParameter
from longshore.events import BACKLOG, HISTORY, EventBus, matches
from longshore.types.events import Actor, EventMessage


def event(
    kind: str = "container", action: str = "start", id: str = "abc123", **attributes: str
) -> EventMessage:
    return EventMessage(Type=kind, Action=action, Actor=Actor(id, attributes))


@pytest.mark.parametrize(
    ("filters", "message", "wanted"),
    [
        ({}, event(), True),
        ({"type": ["network"]}, event(), False),
        ({"type": ["network", "container"]}, event(), True),
        ({"event": ["health_status"]}, event(action="health_status: healthy"), True),
        ({"event": ["health_status: unhealthy"]}, event(action="health_status: healthy"), False),
        ({"event": ["exec_create"]}, event(action="exec_create: sh -c x"), True),
        ({"event": ["sta"]}, event(), False),
        ({"container": ["abc"]}, event(), True),
        ({"container": ["web"]}, event(name="web"), True),
        ({"container": ["other"]}, event(name="web"), False),
        ({"image": ["busybox"]}, event(image="busybox:latest"), True),
        ({"image": ["busybox:1"]}, event(image="busybox:latest"), False),
        ({"image": ["host:5000/a"]}, event(image="host:5000/a:tag"), True),
        ({"image": ["busybox"]}, event("image", "tag", "sha256:1", name="busybox:latest"), True),
        ({"label": ["a"]}, event(a="1"), True),
        ({"label": ["a=1", "b"]}, event(a="1"), False),
        ({"label": ["a=2"]}, event(a="1"), False),
        ({"scope": ["swarm"]}, event(), False),
        ({"scope": {"local": True}}, event(), True),
        ({"volume": ["data"]}, event("volume", "create", "data"), True),
    ],
)
def test_filters(filters: dict[str, list[str]], message: EventMessage, wanted: bool) -> None:
    assert matches(filters, message) is wanted


async def take(bus: EventBus, since: str = "", until: str = "", **filters: list[str]) -> list[str]:
    return [message.Action async for message in bus.subscribe(filters, since, until)]


def test_the_past_is_kept_and_bounded() -> None:
    async def run() -> None:
        bus = EventBus()
        for number in range(HISTORY + 10):
            bus.publish("container", str(number), "x", {})
        past = await take(bus, since="1", until=str(time.time() + 0.2))
        assert past == [str(number) for number in range(10, HISTORY + 10)]
        assert bus.listeners == 0

    asyncio.run(run())


def test_until_in_the_past_ends_at_once() -> None:
    async def run() -> None:
        bus = EventBus()
        bus.publish("container", "start", "x", {})
        assert await asyncio.wait_for(take(bus, until=f"{time.time():.9f}"), 1) == ["start"]

    asyncio.run(run())


def test_listening_begins_with_the_call() -> None:
    async def run() -> None:
        bus = EventBus()
        messages = bus.subscribe({"type": ["container"]})
        bus.publish("network", "create", "n", {})
        bus.publish("container", "start", "x", {"image": "i"})
        message = await anext(messages)
        assert (message.Action, message.status, message.id, message.from_) == ("start", "start", "x", "i")
        bus.close()
        assert [rest async for rest in messages] == []

    asyncio.run(run())


def test_a_slow_subscriber_is_dropped() -> None:
    async def run() -> None:
        bus = EventBus()
        slow = bus.subscribe({})
        for number in range(BACKLOG + 1):
            bus.publish("container", str(number), "x", {})
        assert bus.listeners == 0
        assert len([message async for message in slow]) == BACKLOG

    asyncio.run(run())


def test_since_after_until() -> None:
    async def run() -> None:
        with pytest.raises(InvalidParameter, match=r"`since` time \(2\) cannot be after `until` time \(1\)"):
            EventBus().subscribe({}, "2", "1")

    asyncio.run(run())
