"""Ping, version, info, routing, versions, bodies that are no JSON."""

from __future__ import annotations

from differential.compare import Case, case

CASES: list[Case] = [
    case("ping", "GET /_ping", raw=True, version=""),
    case("ping head", "HEAD /_ping", raw=True, version=""),
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
    case("info: drivers and lists", "GET /info", status_only=True),
    case(
        "empty container list",
        "GET /containers/json",
        same=("",),
    ),
    case("container list, bad filters", "GET /containers/json?filters=nope", newer="invalid filter"),
    case("container list, unknown filter", "GET /containers/json?filters=%7B%22nope%22%3A%5B%22x%22%5D%7D"),
    case(
        "container list, bad status",
        "GET /containers/json?filters=%7B%22status%22%3A%5B%22nope%22%5D%7D",
        newer=(
            "invalid filter 'status=nope': invalid value for state (nope): "
            "must be one of created, running, paused, restarting, removing, exited, dead"
        ),
    ),
    case(
        "container list, bad health",
        "GET /containers/json?filters=%7B%22health%22%3A%5B%22nope%22%5D%7D",
        newer=(
            "invalid filter 'health=nope': invalid value for health (nope): "
            "must be one of none, starting, healthy, unhealthy"
        ),
    ),
    case(
        "container list, before a missing one",
        "GET /containers/json?filters=%7B%22before%22%3A%5B%22nope%22%5D%7D",
        newer="No such container: nope",
    ),
    case(
        "container list, exit code that is no number",
        "GET /containers/json?filters=%7B%22exited%22%3A%5B%22x%22%5D%7D",
        newer="invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax",
    ),
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
