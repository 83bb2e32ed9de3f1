"""Statuses, messages and headers before any handler: as dockerd gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from api.served import Serve

from longshore.api.http import Request, Response
from longshore.api.router import ROUTES
from longshore.api.routes import Route, RouteTable
from longshore.errors import Conflict, InvalidParameter, NotModified


def message(body: bytes) -> str:
    assert body.endswith(b"\n")
    answer: str = json.loads(body)["message"]
    return answer


@pytest.mark.parametrize("path", ["/foo", "/vabc/info", "/containers/x/", "/v1.41/foo", "/v1.41"])
def test_unknown_paths_are_not_found_without_version_headers(serve: Serve, path: str) -> None:
    status, headers, body = serve().get(path)
    assert (status, message(body)) == (404, "page not found")
    assert "api-version" not in headers


def test_a_method_without_a_route_is_not_found_as_in_dockerd(serve: Serve) -> None:
    assert serve().get("/containers/json", method="PUT")[0] == 404


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("1.99", "client version 1.99 is too new. Maximum supported API version is 1.50"),
        (
            "1.12",
            "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your "
            "client to a newer version",
        ),
    ],
)
def test_versions_out_of_range(serve: Serve, version: str, text: str) -> None:
    status, headers, body = serve().get(f"/v{version}/_ping")
    assert (status, message(body)) == (400, text)
    assert headers["api-version"] == "1.50"


@pytest.mark.parametrize("version", ["", "/v1.24", "/v1.50"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping(serve: Serve, version: str, method: str) -> None:
    status, headers, body = serve().get(f"{version}/_ping", method=method)
    assert (status, body) == (200, b"OK" if method == "GET" else b"")
    assert headers["api-version"] == "1.50"
    assert headers["ostype"] == "linux"
    assert headers["docker-experimental"] == "false"
    assert headers["builder-version"] == "2"
    assert headers["swarm"] == "inactive"
    assert headers["cache-control"] == "no-cache, no-store, must-revalidate"


def test_unclean_paths_are_redirected(serve: Serve) -> None:
    status, headers, _ = serve().get("//containers/json")
    assert (status, headers["location"]) == (301, "/containers/json")


@pytest.mark.parametrize("path", ["/swarm", "/nodes", "/services/x", "/tasks", "/secrets", "/configs"])
def test_swarm_routes_say_that_there_is_no_swarm(serve: Serve, path: str) -> None:
    status, _, body = serve().get(path)
    assert status == 503
    assert message(body).startswith("This node is not a swarm manager.")


def failing(error: Exception) -> Route:
    async def handler(engine: Any, request: Request) -> Response:
        raise error

    return Route("GET", "/failing", handler)


def test_engine_errors_become_statuses(serve: Serve) -> None:
    status, _, body = serve(failing(Conflict("in the way"))).get("/failing")
    assert (status, message(body)) == (409, "in the way")


def test_a_subclass_answers_as_its_base(serve: Serve) -> None:
    class Particular(InvalidParameter):
        pass

    assert serve(failing(Particular("x"))).get("/failing")[0] == 400


def test_not_modified_has_no_body(serve: Serve) -> None:
    status, headers, body = serve(failing(NotModified("already"))).get("/failing")
    assert (status, body) == (304, b"")
    assert "content-length" not in headers


def test_bugs_are_500_and_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    status, _, body = serve(failing(ZeroDivisionError("a bug"))).get("/failing")
    assert (status, message(body)) == (500, "a bug")
    assert "ZeroDivisionError" in caplog.text


def test_a_message_cannot_add_headers(serve: Serve) -> None:
    async def handler(engine: Any, request: Request) -> Response:
        return Response(200, b"", {"X-Name": request.vars["name"]})

    status, headers, _ = serve(Route("GET", "/named/{name:.*}", handler)).get("/named/a%0d%0aX-Evil:%20b")
    assert status == 200
    assert "x-evil" not in headers


@pytest.mark.parametrize(
    ("method", "path", "template", "variables"),
    [
        ("GET", "/containers/json", "/containers/json", {}),
        ("GET", "/containers/a/b/json", "/containers/{name:.*}/json", {"name": "a/b"}),
        ("GET", "/images/host:5000/a/b:tag/json", "/images/{name:.*}/json", {"name": "host:5000/a/b:tag"}),
        ("GET", "/containers/x/attach/ws", "/containers/{name:.*}/attach/ws", {"name": "x"}),
        ("POST", "/containers/create", "/containers/create", {}),
        ("POST", "/containers/prune", "/containers/prune", {}),
        ("DELETE", "/containers/x", "/containers/{name:.*}", {"name": "x"}),
        ("GET", "/networks/abc", "/networks/{id:.+}", {"id": "abc"}),
    ],
)
def test_routes_are_found(method: str, path: str, template: str, variables: dict[str, str]) -> None:
    found = RouteTable(ROUTES).find(method, path)
    assert found is not None
    assert (found[0].path, found[1]) == (template, variables)


def test_no_route_is_declared_twice() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_a_version_of_any_length_is_too_new(serve: Serve) -> None:
    status, _, body = serve().get(f"/v1.{'9' * 5000}/_ping")
    assert (status, "is too new" in message(body)) == (400, True)
