"""The verbs of a container: start, stop, kill, wait, rename, remove, list, logs, attach, top, update …"""

from __future__ import annotations

from typing import Any

from differential.compare import Case, Request, case, request

IMAGE = {"Image": "busybox"}


def created(name: str = "box", **body: Any) -> tuple[Request, ...]:
    """A container that exists."""
    return (request(f"POST /containers/create?name={name}", {**IMAGE, "Cmd": ["true"], **body}),)


def running(name: str = "box", **body: Any) -> tuple[Request, ...]:
    """A container that runs until it is killed."""
    return (
        *created(name, **{"Cmd": ["sleep", "1000"], "StopSignal": "KILL", **body}),
        request(f"POST /containers/{name}/start"),
    )


def exited(name: str = "box", **body: Any) -> tuple[Request, ...]:
    """A container that ran to its end."""
    return (*running(name, **{"Cmd": ["true"], **body}), request(f"POST /containers/{name}/wait"))


def paused(name: str = "box") -> tuple[Request, ...]:
    """A container that is frozen."""
    return (*running(name), request(f"POST /containers/{name}/pause"))


VERBS = ("start", "stop", "restart", "kill", "pause", "unpause", "wait", "rename?name=x1", "resize?h=1&w=1")
TWO = (*running("one", Labels={"a": "1"}), *exited("two", Labels={"a": "2"}, Cmd=["sh", "-c", "exit 3"]))
INSPECTED = (
    "State.Status",
    "State.Running",
    "State.Paused",
    "State.Restarting",
    "State.OOMKilled",
    "State.Dead",
    "State.ExitCode",
    "State.Error",
    "RestartCount",
    "Name",
    "Path",
    "Args",
    "Driver",
    "Platform",
    "MountLabel",
    "ProcessLabel",
    "ExecIDs",
    "Mounts",
    "NetworkSettings.Ports",
)
ECHO = exited(Cmd=["sh", "-c", "echo out; sleep 0.1; echo err >&2; sleep 0.1; echo more"])

CASES: list[Case] = [
    *(case(f"missing: {verb}", f"POST /containers/nope/{verb}") for verb in VERBS),
    *(
        case(f"missing: {what}", f"GET /containers/nope/{what}")
        for what in (
            "json",
            "logs?stdout=1",
            "top",
            "changes",
            "stats?stream=0",
            "export",
            "archive?path=/etc",
        )
    ),
    case("missing: attach", "POST /containers/nope/attach?stream=1&stdout=1"),
    case("missing: remove", "DELETE /containers/nope"),
    case("missing: update", "POST /containers/nope/update", {"Memory": 0}),
    case("missing: put archive", "PUT /containers/nope/archive?path=/", b""),
    case("missing: head archive", "HEAD /containers/nope/archive?path=/", status_only=True),
    case("start", "POST /containers/box/start", given=created()),
    case("start: runs already", "POST /containers/box/start", given=running()),
    case("start: paused", "POST /containers/box/start", given=paused()),
    case("start: a second time", "POST /containers/box/start", given=exited()),
    case(
        "start: with a body",
        "POST /containers/box/start",
        {"Binds": []},
        given=created(),
        newer=(
            "starting container with non-empty request body was deprecated since API v1.22 "
            "and removed in v1.24"
        ),
    ),
    case("start: checkpoint", "POST /containers/box/start?checkpoint=x", given=created()),
    case(
        "start: command not found",
        "POST /containers/box/start",
        given=created(Cmd=["nope"]),
        status_only=True,
    ),
    case(
        "start: command not executable",
        "POST /containers/box/start",
        given=created(Cmd=["/etc/passwd"]),
        status_only=True,
    ),
    case(
        "start: command that is a directory",
        "POST /containers/box/start",
        given=created(Cmd=["/etc"]),
        status_only=True,
    ),
    case("start: user that is missing", "POST /containers/box/start", given=created(User="nope")),
    case("start: group that is missing", "POST /containers/box/start", given=created(User="root:nope")),
    case(
        "start: network of one that does not run",
        "POST /containers/box/start",
        given=(*created("other"), *created(HostConfig={"NetworkMode": "container:other"})),
    ),
    case(
        "start: network that is missing",
        "POST /containers/box/start",
        given=created(HostConfig={"NetworkMode": "nope"}),
    ),
    case(
        "start: bind of a missing source",
        "POST /containers/box/start",
        given=created(HostConfig={"Binds": ["/proc/nope/x:/x"]}),
        status_only=True,
    ),
    case("stop", "POST /containers/box/stop", given=running()),
    case("stop: does not run", "POST /containers/box/stop", given=created()),
    case("stop: exited", "POST /containers/box/stop", given=exited()),
    case("stop: at once", "POST /containers/box/stop?t=0", given=running(StopSignal="TERM")),
    case("stop: time that is no number", "POST /containers/box/stop?t=x", given=running(), status_only=True),
    case("restart", "POST /containers/box/restart?t=0", given=running()),
    case("restart: created only", "POST /containers/box/restart", given=created()),
    case("kill", "POST /containers/box/kill", given=running()),
    case("kill: by number", "POST /containers/box/kill?signal=9", given=running()),
    case("kill: by name", "POST /containers/box/kill?signal=SIGHUP", given=running()),
    case("kill: name without SIG", "POST /containers/box/kill?signal=hup", given=running()),
    case("kill: signal that is none", "POST /containers/box/kill?signal=NOPE", given=running()),
    case("kill: signal 0", "POST /containers/box/kill?signal=0", given=running()),
    case(
        "kill: signal out of range",
        "POST /containers/box/kill?signal=1000",
        given=running(),
        status_only=True,
    ),
    case("kill: does not run", "POST /containers/box/kill", given=created()),
    case("kill: exited", "POST /containers/box/kill", given=exited()),
    case("kill: paused", "POST /containers/box/kill?signal=HUP", given=paused(), status_only=True),
    case("pause", "POST /containers/box/pause", given=running()),
    case("pause: does not run", "POST /containers/box/pause", given=created()),
    case("pause: paused", "POST /containers/box/pause", given=paused()),
    case("unpause", "POST /containers/box/unpause", given=paused()),
    case("unpause: not paused", "POST /containers/box/unpause", given=running()),
    case("unpause: does not run", "POST /containers/box/unpause", given=created(), status_only=True),
    case("wait: exited", "POST /containers/box/wait", given=exited(), same=("StatusCode",)),
    case("wait: created only", "POST /containers/box/wait", given=created(), same=("StatusCode",)),
    case(
        "wait: exit code",
        "POST /containers/box/wait",
        given=exited(Cmd=["sh", "-c", "exit 7"]),
        same=("StatusCode",),
    ),
    case(
        "wait: condition that is none",
        "POST /containers/box/wait?condition=nope",
        given=exited(),
        newer='invalid condition: "nope"',
    ),
    case("rename", "POST /containers/box/rename?name=other", given=created()),
    case("rename: to nothing", "POST /containers/box/rename?name=", given=created()),
    case("rename: without a name", "POST /containers/box/rename", given=created()),
    case("rename: to itself", "POST /containers/box/rename?name=box", given=created()),
    case(
        "rename: to a taken name",
        "POST /containers/box/rename?name=other",
        given=(*created("other"), *created()),
    ),
    case("rename: to a name that is none", "POST /containers/box/rename?name=a!b", given=created()),
    case("remove", "DELETE /containers/box", given=created()),
    case(
        "remove: runs",
        "DELETE /containers/box",
        given=running(),
        newer=(
            'cannot remove container "/box": container is running: '
            "stop the container before removing or force remove"
        ),
    ),
    case(
        "remove: paused",
        "DELETE /containers/box",
        given=paused(),
        newer=('cannot remove container "/box": container is paused and must be unpaused first'),
    ),
    case("remove: runs, forced", "DELETE /containers/box?force=1", given=running()),
    case("remove: paused, forced", "DELETE /containers/box?force=1", given=paused()),
    case("remove: with volumes", "DELETE /containers/box?v=1", given=created(Volumes={"/x": {}})),
    case(
        "remove: a link that is missing", "DELETE /containers/box?link=1", given=created(), status_only=True
    ),
    case("inspect: created", "GET /containers/box/json", given=created(), same=INSPECTED),
    case("inspect: runs", "GET /containers/box/json", given=running(), same=INSPECTED),
    case("inspect: exited", "GET /containers/box/json", given=exited(), same=INSPECTED),
    case("inspect: paused", "GET /containers/box/json", given=paused(), same=INSPECTED),
    case("inspect: with sizes", "GET /containers/box/json?size=1", given=created()),
    case(
        "inspect: command not found",
        "GET /containers/box/json",
        given=created(Cmd=["true"], HostConfig={"NetworkMode": "none"}),
        same=INSPECTED,
    ),
    case(
        "inspect: endpoint of one that runs",
        "GET /containers/box/json",
        given=running(),
        same=("NetworkSettings.Networks.bridge.IPPrefixLen", "NetworkSettings.Networks.bridge.Aliases"),
    ),
    case(
        "inspect: host network",
        "GET /containers/box/json",
        given=running(HostConfig={"NetworkMode": "host"}),
        same=INSPECTED,
    ),
    case(
        "inspect: no network",
        "GET /containers/box/json",
        given=running(HostConfig={"NetworkMode": "none"}),
        same=INSPECTED,
    ),
    case(
        "inspect: published port",
        "GET /containers/box/json",
        given=running(
            ExposedPorts={"80/tcp": {}},
            HostConfig={"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "38123"}]}},
        ),
        same=INSPECTED,
    ),
    case("inspect: named volume", "GET /containers/box/json", given=running(HostConfig={"Binds": ["v1:/v"]})),
    case("logs", "GET /containers/box/logs?stdout=1&stderr=1", given=ECHO, raw=True),
    case("logs: stdout", "GET /containers/box/logs?stdout=1", given=ECHO, raw=True),
    case("logs: stderr", "GET /containers/box/logs?stderr=1", given=ECHO, raw=True),
    case("logs: tail", "GET /containers/box/logs?stdout=1&stderr=1&tail=1", given=ECHO, raw=True),
    case("logs: tail of nothing", "GET /containers/box/logs?stdout=1&tail=0", given=ECHO, raw=True),
    case(
        "logs: followed to the end",
        "GET /containers/box/logs?stdout=1&stderr=1&follow=1",
        given=ECHO,
        raw=True,
    ),
    case("logs: neither stream", "GET /containers/box/logs", given=ECHO),
    case("logs: since that is no time", "GET /containers/box/logs?stdout=1&since=x", given=ECHO),
    case("logs: last two", "GET /containers/box/logs?stdout=1&stderr=1&tail=2", given=ECHO, raw=True),
    case("logs: tail of all", "GET /containers/box/logs?stdout=1&tail=all", given=ECHO, raw=True),
    case("logs: tail that is no number", "GET /containers/box/logs?stdout=1&tail=x", given=ECHO, raw=True),
    case("logs: until the past", "GET /containers/box/logs?stdout=1&until=1", given=ECHO, raw=True),
    case("logs: since the past", "GET /containers/box/logs?stdout=1&since=1.5", given=ECHO, raw=True),
    case(
        "attach: keys that are none", "POST /containers/box/attach?stream=1&detachKeys=nope", given=running()
    ),
    case(
        "wait: not running",
        "POST /containers/box/wait?condition=not-running",
        given=exited(),
        same=("StatusCode",),
    ),
    case("logs: in the future", "GET /containers/box/logs?stdout=1&since=9999999999", given=ECHO, raw=True),
    case("logs: created only", "GET /containers/box/logs?stdout=1", given=created(), raw=True),
    case(
        "logs: terminal",
        "GET /containers/box/logs?stdout=1",
        raw=True,
        given=exited(Cmd=["echo", "hi"], Tty=True),
    ),
    case(
        "logs: no driver",
        "GET /containers/box/logs?stdout=1",
        given=exited(HostConfig={"LogConfig": {"Type": "none"}}),
    ),
    case("attach: paused", "POST /containers/box/attach?stream=1&stdout=1", given=paused(), status_only=True),
    case("resize: created only", "POST /containers/box/resize?h=10&w=10", given=created()),
    case("resize: no number", "POST /containers/box/resize?h=x&w=10", given=running()),
    case(
        "resize: nothing given",
        "POST /containers/box/resize",
        given=running(),
        newer='invalid resize height "": invalid syntax',
    ),
    case("resize", "POST /containers/box/resize?h=10&w=10", given=running(Tty=True)),
    case("top", "GET /containers/box/top", given=running(), same=("Titles",)),
    case("top: options", "GET /containers/box/top?ps_args=-o%20pid,comm", given=running(), same=("Titles",)),
    case("top: without pid", "GET /containers/box/top?ps_args=-o%20comm", given=running()),
    case("top: does not run", "GET /containers/box/top", given=created()),
    case("changes: none", "GET /containers/box/changes", given=created()),
    case(
        "changes",
        "GET /containers/box/changes",
        same=("",),
        given=exited(Cmd=["sh", "-c", "echo 1 >/new; rm /etc/group"]),
    ),
    case("update: nothing", "POST /containers/box/update", {}, given=created()),
    case(
        "update: memory",
        "POST /containers/box/update",
        {"Memory": 1 << 26, "MemorySwap": -1},
        given=created(),
    ),
    case(
        "update: real-time while it runs",
        "POST /containers/box/update",
        {"CpuRealtimeRuntime": 1},
        given=running(),
    ),
    case("update: memory too small", "POST /containers/box/update", {"Memory": 1000}, given=created()),
    case(
        "update: restart of auto-remove",
        "POST /containers/box/update",
        {"RestartPolicy": {"Name": "always"}},
        given=created(HostConfig={"AutoRemove": True}),
    ),
    case("archive: without a path", "GET /containers/box/archive", given=created()),
    case("archive: missing path", "GET /containers/box/archive?path=/nope", given=created()),
    case("archive: head", "HEAD /containers/box/archive?path=/etc/passwd", given=created(), status_only=True),
    case(
        "archive: put into a missing directory",
        "PUT /containers/box/archive?path=/nope",
        b"",
        given=created(),
    ),
    case("archive: put into a file", "PUT /containers/box/archive?path=/etc/passwd", b"", given=created()),
    case("stats: created only", "GET /containers/box/stats?stream=0", given=created()),
    case("stats: once", "GET /containers/box/stats?stream=0&one-shot=1", given=running(), status_only=True),
    case("exec: does not run", "POST /containers/box/exec", {"Cmd": ["true"]}, given=created()),
    case("exec: paused", "POST /containers/box/exec", {"Cmd": ["true"]}, given=paused()),
    case("exec: no command", "POST /containers/box/exec", {"Cmd": []}, given=running()),
    case("exec: created", "POST /containers/box/exec", {"Cmd": ["true"]}, given=running()),
    case("prune: nothing", "POST /containers/prune"),
    case("prune: bad filters", "POST /containers/prune?filters=nope", newer="invalid filter"),
    case("prune: unknown filter", "POST /containers/prune?filters=%7B%22nope%22%3A%5B%22x%22%5D%7D"),
    case("prune", "POST /containers/prune", given=created()),
]
