"""Which containers a list is about: Docker's filters of `docker ps` (daemon/list.go)."""

from __future__ import annotations

import re
from collections.abc import Callable

from longshore.containers.container import Container
from longshore.engine.engine import Engine
from longshore.engine.ports import parse_port
from longshore.errors import EngineError, InvalidParameter, NotFound
from longshore.types.codec import names
from longshore.types.filters import Filters, boolean_filter, check_filters, exactly, has_labels, matches
from longshore.types.timestamp import ZERO_TIME

STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
HEALTH = ("none", "starting", "healthy", "unhealthy")
FILTERS = names(
    "ancestor before exited expose health id is-task isolation label name network publish since status volume"
)

Test = Callable[[Container], bool]


def select(engine: Engine, filters: Filters, *, all: bool, limit: int) -> list[Container]:
    """The containers that pass all of `filters`, newest first, at most `limit` of them if that is positive.

    Only those that run, unless `all`, a limit, or the filter `status` says otherwise. Raises
    InvalidParameter for a bad filter, and NotFound for a container of `before` or `since`.
    """
    check_filters(filters, FILTERS)
    tests = _tests(engine, filters)
    if not (all or limit > 0 or filters.get("status")):
        tests.append(lambda container: container.state.Running)
    chosen: list[Container] = []
    for container in sorted(engine.containers, key=lambda one: one.created, reverse=True):
        if 0 < limit <= len(chosen):
            break
        if not container.removed and _passes(container, tests):
            chosen.append(container)
    return chosen


def _passes(container: Container, tests: list[Test]) -> bool:
    return all(test(container) for test in tests)


def _tests(engine: Engine, filters: Filters) -> list[Test]:
    """A test for each filter that has values, but for `isolation`, of which Linux has one kind."""
    make: dict[str, Callable[[], Test]] = {
        "exited": lambda: _exited(filters),
        "status": lambda: _state(filters),
        "is-task": lambda: _is_task(filters),
        "health": lambda: _health(filters),
        "before": lambda: _before(engine, filters),
        "since": lambda: _since(engine, filters),
        "ancestor": lambda: _ancestor(engine, filters),
        "id": lambda: _id(engine, filters),
        "name": lambda: _name(filters),
        "label": lambda: lambda c: has_labels(c.config.Labels or {}, filters["label"]),
        "volume": lambda: _volume(filters),
        "network": lambda: _network(filters),
    }
    tests = [test() for name, test in make.items() if filters.get(name)]
    if filters.get("publish") or filters.get("expose"):
        tests.append(_ports(filters))
    return tests


def _exited(filters: Filters) -> Test:
    codes = set()
    for value in filters["exited"]:
        if not re.fullmatch(r"[+-]?[0-9]+", value):
            raise InvalidParameter(
                f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"
            )
        codes.add(int(value))
    return lambda c: c.state.ExitCode in codes and not c.state.Running and c.state.StartedAt != ZERO_TIME


def _state(filters: Filters) -> Test:
    _check("status", "state", filters, STATES)
    return lambda c: matches(filters, "status", c.status)


def _health(filters: Filters) -> Test:
    _check("health", "health", filters, HEALTH)
    return lambda c: exactly(filters, "health", c.state.Health.Status if c.state.Health else "none")


def _check(name: str, what: str, filters: Filters, known: tuple[str, ...]) -> None:
    for value in filters[name]:
        if value not in known:
            raise InvalidParameter(
                f"invalid filter '{name}={value}': invalid value for {what} ({value}): "
                f"must be one of {', '.join(known)}"
            )


def _is_task(filters: Filters) -> Test:
    wanted = boolean_filter(filters, "is-task")
    return lambda c: not wanted  # There are no tasks without a swarm.


def _before(engine: Engine, filters: Filters) -> Test:
    moment = _made(engine, list(filters["before"])[-1])
    return lambda c: c.created < moment


def _since(engine: Engine, filters: Filters) -> Test:
    moment = _made(engine, list(filters["since"])[-1])
    return lambda c: c.created > moment


def _made(engine: Engine, name: str) -> int:
    """When the container of that whole id or name was made: here the beginning of an id names nothing."""
    container = engine.containers.get(name)
    if name not in (container.id, container.name, f"/{container.name}"):
        raise NotFound(f"No such container: {name}")
    return container.created


def _ancestor(engine: Engine, filters: Filters) -> Test:
    wanted: set[str] = set()
    for name in filters["ancestor"]:
        try:
            pending = [engine.images.resolve(name).id]
        except EngineError:
            continue
        while pending:
            wanted.add(current := pending.pop())
            pending += engine.images.images.children(current)
    return lambda c: c.record.Image in wanted


def _id(engine: Engine, filters: Filters) -> Test:
    """Beginnings of ids, of which each has to mean one container."""
    wanted = set()
    for prefix in filters["id"]:
        begun = [container.id for container in engine.containers if container.id.startswith(prefix)]
        if len(begun) == 1:
            wanted.add(begun[0])
    return lambda c: c.id in wanted


def _name(filters: Filters) -> Test:
    return lambda c: matches(filters, "name", c.name, f"/{c.name}")


def _volume(filters: Filters) -> Test:
    wanted = set(filters["volume"])
    return lambda c: any(
        (point.Name or point.Source) in wanted or point.Destination in wanted
        for point in c.mount_points.values()
    )


def _network(filters: Filters) -> Test:
    """By name, or by the beginning of the network's id."""
    wanted = tuple(filters["network"])
    return lambda c: any(
        name in wanted or endpoint.NetworkID.startswith(wanted)
        for name, endpoint in (c.networks.Networks or {}).items()
    )


def _ports(filters: Filters) -> Test:
    """A port that is published at, or exposed as, one of those asked for, while the container runs."""
    published, exposed = _port_set(filters, "publish"), _port_set(filters, "expose")

    def test(container: Container) -> bool:
        for text, places in (container.networks.Ports or {}).items():
            protocol, number, _ = parse_port(text)
            if (protocol, number) in exposed:
                return True
            if any((protocol, int(place.HostPort or 0)) in published for place in places or ()):
                return True
        return False

    return test


def _port_set(filters: Filters, name: str) -> set[tuple[str, int]]:
    ports = set()
    for value in filters.get(name, ()):
        if ":" in value:
            raise InvalidParameter(f"filter for '{name}' should not contain ':': {value}")
        number, _, protocol = value.partition("/")
        try:
            first, last = _range(number)
        except InvalidParameter as exc:
            raise InvalidParameter(f"error while looking up for {name} {value}: {exc.message}") from None
        ports |= {(protocol.lower() or "tcp", port) for port in range(first, last + 1)}
    return ports


def _range(text: str) -> tuple[int, int]:
    """As nat.ParsePortRange words it."""
    if not text:
        raise InvalidParameter("empty string specified for ports")
    bounds = []
    for part in text.split("-", 1):
        if not re.fullmatch("[0-9]+", part):
            raise InvalidParameter(f'strconv.ParseUint: parsing "{part}": invalid syntax')
        if int(part[:20]) > 65535:
            raise InvalidParameter(f'strconv.ParseUint: parsing "{part}": value out of range')
        bounds.append(int(part))
    if bounds[-1] < bounds[0]:
        raise InvalidParameter(f"invalid range specified for the Port: {text}")
    return bounds[0], bounds[-1]
