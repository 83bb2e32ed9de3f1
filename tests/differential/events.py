"""Which events an operation sends, with which attributes."""

from __future__ import annotations

from dataclasses import dataclass, field

from differential.compare import Request, request
from differential.containers import created, exited, paused, running
from differential.images import TAR, imported
from differential.networks import network

CONTAINER = ("Type", "Action", "status", "from", "scope", "Actor.Attributes")


@dataclass(frozen=True)
class EventCase:
    """Steps, and which events of them are compared, in which parts."""

    name: str
    steps: tuple[Request, ...]
    filters: dict[str, list[str]] = field(default_factory=lambda: {"type": ["container"]})
    keys: tuple[str, ...] = CONTAINER
    doubled: bool = False
    """The oracle tells of one thing twice, by two functions on the same way."""
    ordered: bool = True
    """One after the other; else several things happen beside each other."""


NAMES_ONLY = ("Type", "Action", "scope", "Actor.Attributes.name", "Actor.Attributes.type")
NETWORK = {"type": ["network"]}

CASES: list[EventCase] = [
    EventCase("create", created()),
    EventCase("create with labels", created(Labels={"a": "1"})),
    EventCase("start", running()),
    EventCase("a whole life", (*exited(Cmd=["sh", "-c", "exit 3"]), request("DELETE /containers/box"))),
    EventCase("kill", (*running(), request("POST /containers/box/kill?signal=HUP"))),
    EventCase("stop", (*running(), request("POST /containers/box/stop"))),
    EventCase("restart", (*running(), request("POST /containers/box/restart?t=5"))),
    EventCase("pause", (*paused(), request("POST /containers/box/unpause"))),
    EventCase("rename", (*created(), request("POST /containers/box/rename?name=other"))),
    EventCase("resize", (*running(Tty=True), request("POST /containers/box/resize?h=10&w=20"))),
    EventCase("update", (*created(), request("POST /containers/box/update", {"Memory": 0}))),
    EventCase("forced remove", (*running(), request("DELETE /containers/box?force=1"))),
    EventCase("automatic remove", exited(HostConfig={"AutoRemove": True})[:2]),
    EventCase("command not found", (*created(Cmd=["nope"]),)),
    EventCase(
        "image import and remove",
        (*imported(), request("DELETE /images/empty")),
        {"type": ["image"]},
        ("Type", "Action", "status", "scope"),
    ),
    EventCase(
        "image load",
        (Request("POST", "/images/load?quiet=1", b"\0" * 1024, TAR),),
        {"type": ["image"]},
    ),
    EventCase("exit by itself", exited(Cmd=["sh", "-c", "exit 3"])),
    EventCase("attach", (*running(), request("POST /containers/box/attach?logs=1&stdout=1"))),
    EventCase("top", (*running(), request("GET /containers/box/top"))),
    EventCase("export", (*created(), request("GET /containers/box/export"))),
    EventCase(
        "network connected and left by hand",
        (
            *network(),
            *running(),
            request("POST /networks/net1/connect", {"Container": "box"}),
            request("POST /networks/net1/disconnect", {"Container": "box"}),
        ),
        NETWORK,
        NAMES_ONLY,
        doubled=True,
    ),
    EventCase("filter by image", created(), {"image": ["busybox"]}),
    EventCase("filter by two types", created(), {"type": ["container", "network"]}, NAMES_ONLY),
    EventCase("filter by nothing that is", created(), {"type": ["nope"]}),
    EventCase(
        "image tag",
        (request("POST /images/busybox/tag?repo=other&tag=1"), request("DELETE /images/other:1")),
        {"type": ["image"]},
    ),
    EventCase(
        "volume",
        (request("POST /volumes/create", {"Name": "v1"}), request("DELETE /volumes/v1")),
        {"type": ["volume"]},
    ),
    EventCase(
        "volume of a container",
        running(HostConfig={"Binds": ["v1:/v"]}),
        {"type": ["volume"]},
        ("Type", "Action", "Actor.Attributes.driver", "Actor.Attributes.destination"),
    ),
    EventCase(
        "life of a volume of a container",
        (
            *running(HostConfig={"Binds": ["v1:/etc:ro"]}),
            request("POST /containers/box/kill"),
            request("DELETE /containers/box"),
        ),
        {"type": ["volume"]},
        ("Type", "Action", "scope", "Actor.Attributes"),
    ),
    EventCase("network", (*network(), request("DELETE /networks/net1")), NETWORK, NAMES_ONLY),
    EventCase(
        "network of a container", (*running(), request("DELETE /containers/box?force=1")), NETWORK, NAMES_ONLY
    ),
    EventCase("filter by event", running(), {"event": ["start"]}),
    EventCase("filter by container", running(), {"container": ["box"]}),
    EventCase("filter by label", running(Labels={"a": "1"}), {"label": ["a=1"]}, NAMES_ONLY),
]
