"""Parameters and bodies read as dockerd reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from api.served import Serve, Served

from longshore.api import query
from longshore.api.http import Request, Response
from longshore.api.respond import json_response
from longshore.api.routes import Route
from longshore.types.network import NetworkCreateRequest


async def echo(engine: Any, request: Request) -> Response:
    return json_response(
        {
            "flag": query.boolean(request, "flag"),
            "default": query.boolean(request, "default", default=True),
            "number": query.integer(request, "number"),
            "filters": query.filters(request),
        }
    )


async def body(engine: Any, request: Request) -> Response:
    return json_response(await query.json_body(request, NetworkCreateRequest))


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve(Route("GET", "/echo", echo), Route("POST", "/body", body))


@pytest.mark.parametrize(
    ("text", "value"),
    [("", False), ("0", False), ("no", False), ("False", False), ("NONE", False), ("1", True), ("x", True)],
)
def test_booleans(served: Served, text: str, value: bool) -> None:
    assert json.loads(served.get(f"/echo?flag={text}")[2])["flag"] is value


def test_an_absent_boolean_is_its_default(served: Served) -> None:
    assert json.loads(served.get("/echo")[2])["default"] is True
    assert json.loads(served.get("/echo?default")[2])["default"] is False


def test_integers(served: Served) -> None:
    assert json.loads(served.get("/echo?number=-1")[2])["number"] == -1
    assert json.loads(served.get("/echo?number=")[2])["number"] is None
    status, _, raw = served.get("/echo?number=1x")
    assert status == 400
    assert json.loads(raw)["message"] == 'strconv.Atoi: parsing "1x": invalid syntax'


@pytest.mark.parametrize("text", ['{"label":{"a":true,"b":true}}', '{"label":["a","b"]}'])
def test_both_shapes_of_filters(served: Served, text: str) -> None:
    quoted = text.replace('"', "%22")
    assert json.loads(served.get(f"/echo?filters={quoted}")[2])["filters"] == {"label": ["a", "b"]}


def test_malformed_filters(served: Served) -> None:
    status, _, raw = served.get("/echo?filters=xx")
    assert (status, json.loads(raw)["message"]) == (400, "invalid filter")


@pytest.mark.parametrize(
    ("content_type", "text", "expected"),
    [
        ("text/plain", "{}", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        ("", "{}", "malformed Content-Type header (): mime: no media type"),
        ("application/json", " ", "invalid JSON: got EOF while reading request body"),
        ("application/json", "{", "invalid JSON: unexpected EOF"),
        ("application/json", "{}{}", "unexpected content after JSON"),
    ],
)
def test_bad_bodies(served: Served, content_type: str, text: str, expected: str) -> None:
    header = f"Content-Type: {content_type}\r\n" if content_type else ""
    status, _, raw = served.get("/body", "POST", header, text)
    assert (status, json.loads(raw)["message"]) == (400, expected)


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_good_bodies_whatever_the_case_of_their_keys(served: Served, content_type: str) -> None:
    header = f"Content-Type: {content_type}\r\n"
    status, _, raw = served.get("/body", "POST", header, '{"name":"n","Labels":null}')
    assert (status, json.loads(raw)["Name"]) == (200, "n")


def test_no_body_is_all_defaults(served: Served) -> None:
    status, _, raw = served.get("/body", "POST")
    assert (status, json.loads(raw)["Name"]) == (200, "")


def test_starting_with_a_body_is_refused(served: Served) -> None:
    header = "Content-Type: application/json\r\n"
    status, _, raw = served.get("/containers/x/start", "POST", header, '{"Binds":[]}')
    assert (status, json.loads(raw)["message"]) == (
        400,
        "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
    )


@pytest.mark.parametrize("raw", ["[" * 100_000, '{"a":' * 50_000])
def test_deep_nesting_is_the_clients_error(served: Served, raw: str) -> None:
    status, _, answer = served.get("/body", "POST", "Content-Type: application/json\r\n", raw)
    assert status == 400
    assert json.loads(answer)["message"].startswith("invalid JSON: ")


def test_numbers_of_any_length_are_out_of_range(served: Served) -> None:
    status, _, answer = served.get(f"/echo?number={'9' * 5000}")
    assert (status, json.loads(answer)["message"].endswith("value out of range")) == (400, True)
    assert json.loads(served.get(f"/echo?number={'0' * 5000}7")[2])["number"] == 7
    assert json.loads(served.get(f"/echo?number=-{'0' * 5000}7")[2])["number"] == -7


def test_bodies_are_bounded(served: Served) -> None:
    headers = f"Content-Type: application/json\r\nContent-Length: {query.MAX_JSON + 1}\r\n"
    assert served.get("/body", "POST", headers)[0] == 413


def test_nothing_is_read_as_a_request_behind_a_broken_body(served: Served) -> None:
    with served.connect() as client:
        client.sendall(
            b"POST /body HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\nGET /echo HTTP/1.1\r\nHost: d\r\n\r\n"
        )
        received = b""
        while chunk := client.recv(65536):
            received += chunk
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 400 ")
