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


def executed(name: str) -> Request:
    """An exec; the step after it may name it as {Id}."""
    return request(f"POST /containers/{name}/exec", {"Cmd": ["sh", "-c", "exit 4"]})


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
    EventCase(
        "exec and what it does",
        (
            *running(),
            executed("box"),
            request("POST /exec/{Id}/start", {"Detach": True}),
        ),
    ),
    EventCase("exec that is never started", (*running(), executed("box"))),
    EventCase(
        "commit", (*created(), request("POST /commit?container=box&repo=made&tag=1&comment=c&author=a"))
    ),
    EventCase(
        "commit, as the image sees it",
        (*created(), request("POST /commit?container=box&repo=made&tag=1"), request("DELETE /images/made:1")),
        {"type": ["image"]},
        ("Type", "Action", "scope", "Actor.Attributes"),
    ),
    EventCase(
        "files copied",
        (
            *created(),
            Request("PUT", "/containers/box/archive?path=/tmp", b"\0" * 1024, TAR),
            request("GET /containers/box/archive?path=/etc/passwd"),
        ),
    ),
    EventCase("changes", (*created(), request("GET /containers/box/changes"))),
    EventCase("logs", (*exited(), request("GET /containers/box/logs?stdout=1"))),
    EventCase("wait", (*exited(), request("POST /containers/box/wait"))),
    EventCase("containers pruned", (*exited(), request("POST /containers/prune"))),
    EventCase("nothing pruned", (request("POST /containers/prune"),)),
    EventCase(
        "volumes pruned",
        (request("POST /volumes/create", {"Name": "v1"}), request("POST /volumes/prune")),
        {"type": ["volume"]},
        ("Type", "Action", "scope", "Actor.Attributes"),
    ),
    EventCase("networks pruned", (*network(), request("POST /networks/prune")), NETWORK, NAMES_ONLY),
    EventCase(
        "images pruned",
        (*imported(), request("POST /images/prune")),
        {"type": ["image"]},
        ("Type", "Action", "scope"),
    ),
    EventCase("image saved", (request("GET /images/busybox/get"),), {"type": ["image"]}),
    EventCase("image seen", (request("GET /images/busybox/json"),), {"type": ["image"]}),
    EventCase(
        "image tagged twice and removed by name",
        (
            Request("POST", "/images/create?fromSrc=-&repo=empty&tag=1", b"\0" * 1024, TAR),
            request("POST /images/empty:1/tag?repo=empty&tag=2"),
            request("DELETE /images/empty:1"),
            request("DELETE /images/empty:2"),
        ),
        {"type": ["image"]},
        ("Type", "Action", "scope", "Actor.Attributes"),
    ),
    EventCase(
        "a container's health",
        running(Healthcheck={"Test": ["CMD", "true"], "Interval": 100_000_000}),
        {"event": ["health_status"]},
    ),
    EventCase(
        "killed by a signal it dies of",
        (*running(), request("POST /containers/box/kill?signal=KILL"), request("POST /containers/box/wait")),
    ),
    EventCase("stopped that does not run", (*created(), request("POST /containers/box/stop"))),
    EventCase("started that runs", (*running(), request("POST /containers/box/start"))),
    EventCase("not executable", (*created(Cmd=["/etc/passwd"]), request("POST /containers/box/start"))),
    EventCase(
        "a container on a network of its own",
        (
            *network(),
            *running(HostConfig={"NetworkMode": "net1"}),
            request("DELETE /containers/box?force=1"),
            request("DELETE /networks/net1"),
        ),
        NETWORK,
        NAMES_ONLY,
        doubled=True,
    ),
    EventCase(
        "connected while it does not run",
        (*network(), *created(), request("POST /networks/net1/connect", {"Container": "box"})),
        NETWORK,
        NAMES_ONLY,
    ),
    EventCase(
        "a whole life on the host's network",
        (*running(HostConfig={"NetworkMode": "host"}), request("DELETE /containers/box?force=1")),
        NETWORK,
        NAMES_ONLY,
    ),
    EventCase(
        "anonymous volume",
        (*running(Volumes={"/v": {}}), request("DELETE /containers/box?force=1&v=1")),
        {"type": ["volume"]},
        ("Type", "Action", "scope", "Actor.Attributes.driver", "Actor.Attributes.destination"),
    ),
    EventCase(
        "filter by volume", (*running(HostConfig={"Binds": ["v1:/v"]}),), {"volume": ["v1"]}, NAMES_ONLY
    ),
    EventCase("filter by network", (*network(), *running()), {"network": ["net1"]}, NAMES_ONLY),
    EventCase("filter by scope", (*network(), *created()), {"scope": ["local"]}, NAMES_ONLY),
    EventCase("filter by another scope", (*network(), *created()), {"scope": ["swarm"]}, NAMES_ONLY),
    EventCase("filter by daemon", created(), {"daemon": ["nope"]}, NAMES_ONLY),
    EventCase("filter by plugin", created(), {"plugin": ["nope"]}, NAMES_ONLY),
    EventCase("filter by two events", exited(), {"event": ["start", "die"]}),
    EventCase(
        "filter by container and event",
        (*created(), *created("other")),
        {"container": ["other"], "event": ["create"]},
    ),
    EventCase(
        "filter by the beginning of a name", created("boxes"), {"container": ["box"], "type": ["container"]}
    ),
    EventCase(
        "filter by two labels", created(Labels={"a": "1", "b": "2"}), {"label": ["a=1", "b"]}, NAMES_ONLY
    ),
    EventCase("filter by image with its tag", created(), {"image": ["busybox:latest"]}, NAMES_ONLY),
    EventCase(
        "filter by image, of image events",
        (request("POST /images/busybox/tag?repo=other&tag=1"), request("DELETE /images/other:1")),
        {"image": ["other"]},
        NAMES_ONLY,
    ),
    EventCase("filter by health", created(), {"event": ["health_status: healthy"]}),
]
