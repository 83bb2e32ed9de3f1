"""Ping, version, info, routing, versions, bodies that are no JSON."""

from __future__ import annotations

from differential.compare import Case, case, request

BOX = (request("POST /containers/create?name=box", {"Image": "busybox", "Cmd": ["true"]}),)

PING = ("Content-Type", "Cache-Control", "Pragma", "Docker-Experimental", "Ostype", "Content-Length")
WARNINGS = "null while there is nothing to warn of, and there is more that ours warns of"

CASES: list[Case] = [
    case("ping", "GET /_ping", raw=True, version="", same_headers=PING),
    case("ping head", "HEAD /_ping", raw=True, version="", same_headers=PING),
    case("ping with a version", "GET /_ping", raw=True),
    case("unknown route", "GET /nope"),
    case("unknown route without a version", "GET /nope", version=""),
    case("unknown method", "POST /info"),
    case("unknown method on a container", "PATCH /containers/json"),
    case(
        "version 0",
        "GET /info",
        version="/v0",
        newer=(
            "client version 0 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version"
        ),
    ),
    case("version that is none", "GET /info", version="/vx"),
    case("unknown version on an unknown route", "GET /nope", version="/v1.41"),
    case(
        "info",
        "GET /info",
        same=("Driver", "Images", "MemoryLimit", "SecurityOptions", "Swarm", "NCPU", "DefaultRuntime"),
        but={
            "Warnings": WARNINGS,
            "Runtimes.io.containerd.runtime.v1.linux": "a shim that newer versions know no more",
        },
    ),
    case(
        "version",
        "GET /version",
        same=("Os", "Arch", "KernelVersion", "Experimental"),
        but={
            "BuildTime": "nothing is built, and it is omitted when empty",
            "Components[].Details.BuildTime": "nothing is built",
            "Components[].Details.GitCommit": "nothing is built",
            "Components[].Details.GoVersion": "it is no Go program",
            "Components[].Details.PythonVersion": "it is a Python program",
        },
    ),
    case("events of the past", "GET /events?since=1&until=2", raw=True),
    case("disk usage of nothing", "GET /system/df", same=("Containers", "Volumes")),
    case("boolean: a word that is true", "GET /containers/json?all=nonsense", given=BOX, same=("*.Names",)),
    case("boolean: none", "GET /containers/json?all=none", given=BOX, same=("*.Names",)),
    case("boolean: False", "GET /containers/json?all=False", given=BOX, same=("*.Names",)),
    case("boolean: empty", "GET /containers/json?all=", given=BOX, same=("*.Names",)),
    case("boolean: twice", "GET /containers/json?all=0&all=1", given=BOX, same=("*.Names",)),
    case(
        "filters: the old list of values", "GET /containers/json?filters=%7B%22name%22%3A%5B%22box%22%5D%7D"
    ),
    case(
        "filters: a map of values",
        "GET /containers/json?all=1&filters=%7B%22name%22%3A%7B%22box%22%3Atrue%7D%7D",
        given=BOX,
        same=("*.Names",),
    ),
    case("filters: a list", "GET /containers/json?filters=%5B%5D", newer="invalid filter"),
    case(
        "empty container list",
        "GET /containers/json",
        same=("",),
    ),
    case("container list, bad filters", "GET /containers/json?filters=nope", newer="invalid filter"),
    case("container list, limit that is no number", "GET /containers/json?limit=x"),
    case("events, since that is no time", "GET /events?since=nope&until=1"),
    case("events, bad filters", "GET /events?until=1&filters=nope", newer="invalid filter"),
    case("events, unknown filter", "GET /events?until=1&filters=%7B%22nope%22%3A%5B%22x%22%5D%7D"),
    case("events, until before since", "GET /events?since=10&until=5"),
    case("auth without a server", "POST /auth", {"username": "", "password": ""}, status_only=True),
    case("exec of a missing container", "POST /containers/nope/exec", {"Cmd": ["true"]}),
    case("exec start that is missing", "POST /exec/nope/start", {"Detach": True}),
    case("exec inspect that is missing", "GET /exec/nope/json"),
    case("exec resize that is missing", "POST /exec/nope/resize?h=1&w=1"),
]
