"""Events as the Engine API sends them."""

from __future__ import annotations

import msgspec

from longshore.types.codec import ApiStruct, names


class Actor(ApiStruct):
    """The object that the event is about."""

    ID: str = ""
    Attributes: dict[str, str] = msgspec.field(default_factory=dict)


class EventMessage(ApiStruct, kw_only=True):
    """One event. `status`, `id` and `from` are the fields of before API 1.22 that Docker still sends."""

    _omitempty = names("status id from_")
    status: str = ""
    id: str = ""
    from_: str = msgspec.field(default="", name="from")
    Type: str = ""
    Action: str = ""
    Actor: Actor
    scope: str = "local"
    time: int = 0
    timeNano: int = 0
