"""What a route is, and how a path finds its own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longshore.api.http import Request, Response

if TYPE_CHECKING:
    from longshore.engine.engine import Engine

Handler = Callable[["Engine", Request], Awaitable[Response | None]]
"""Decodes a request, calls one verb of the engine, encodes. None: it took the connection over."""


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the API. The documentation of the API is made from these."""

    method: str
    path: str
    """`{name:.*}` matches anything, slashes too; `{name}` one segment."""
    handler: Handler
    query: str = ""
    """The query parameters that it reads, separated by blanks."""
    since: tuple[int, ...] = (1, 24)
    """The first API version that has it."""
    hijacks: bool = False
    """Whether the connection becomes a raw stream."""


class RouteTable:
    """Finds the route of a path. Like dockerd's, the first that matches in order of declaration wins."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = defaultdict(list)
        for route in routes:
            self._routes[route.method, _first_segment(route.path)].append((_pattern(route.path), route))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of `path`, which is without a version, and what its placeholders matched."""
        for pattern, route in self._routes.get((method, _first_segment(path)), ()):
            matched = pattern.fullmatch(path)
            if matched is not None:
                return route, matched.groupdict()
        return None


def _first_segment(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else ""


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)(?::([^}]+))?\}", path)
    pattern = re.escape(parts[0])
    for name, kind, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        pattern += f"(?P<{name}>{kind or '[^/]+'})" + re.escape(literal)
    return re.compile(pattern, re.DOTALL)
