"""Every route against requests that nobody wrote: generated from the API's description, good and bad.

Whatever they hold, the daemon answers what it means and never with an error of its own. Left out is what
would leave the machine (pulls, pushes, logins), what takes the connection over (attach), and the swarm's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from docker.transport import UnixHTTPAdapter
from harness import Client, Longshored
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

pytestmark = pytest.mark.filterwarnings("ignore")

BASE = "http://localhost"
OUTSIDE = ("/auth", "/distribution", "/images/create", "/images/search", "/images/{name}/push", "/plugins")
SWARM = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs")
ENDLESS = ("/containers/{id}/attach", "/containers/{id}/attach/ws", "/session", "/build", "/events")
FINITE = {
    "/containers/{id}/logs": {"follow": "0"},
    "/containers/{id}/stats": {"stream": "0", "one-shot": "1"},
    "/containers/{id}/wait": {"condition": "not-running"},
}
"""What makes answers come to an end."""
DOCKERDS_OWN = {
    "/containers/{id}/top": "ps: ",
    "/containers/{id}/update": r"Cannot update container \w+: (stat |runc did not terminate successfully: )",
    "/volumes/create": "This node is not a swarm manager",
    "/volumes/{name}": ".*swarm is unavailable$",
}
"""Messages of errors that dockerd answers with 500, or 503 for what a swarm has, too; regular expressions."""
EXISTING = {
    "containers": ["fuzz-running", "fuzz-made"],
    "images": ["busybox"],
    "networks": ["bridge", "fuzz-network"],
    "volumes": ["fuzz-volume"],
}


def _description() -> dict[str, Any]:
    """The API's description, aimed at what exists here."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("engine-api-v1.50.json").read_text())
    for path, operations in list(found["paths"].items()):
        if path.startswith((*OUTSIDE, *ENDLESS, *SWARM)):
            del found["paths"][path]
            continue
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                _aim(path, method, parameter)
    return found


def _aim(path: str, method: str, parameter: dict[str, Any]) -> None:
    name, place = parameter.get("name"), parameter.get("in")
    if place == "path":
        existing = EXISTING.get(path.split("/")[1], [])
        if method == "delete":
            existing = []  # or there would soon be nothing left to ask about
        elif path.endswith("/wait"):
            existing = ["fuzz-made"]
        parameter["enum"] = [*existing, "fuzz-missing"]
    elif name == "t":
        parameter["maximum"] = 1


schemathesis.serializer.alias("application/x-tar", "application/octet-stream")
schema = schemathesis.openapi.from_dict(
    _description(), config=SchemathesisConfig.from_dict({"phases": {"coverage": {"enabled": False}}})
)


@pytest.fixture(scope="module")
def session(daemon: Longshored) -> Iterator[requests.Session]:
    api = Client(daemon.socket, version="1.50")
    for name, command in (("fuzz-running", ["sleep", "10000"]), ("fuzz-made", ["true"])):
        body = {"Image": "busybox", "Cmd": command, "StopSignal": "KILL"}
        api.post("/containers/create", body, name=name).expect(201)
    api.post("/networks/create", {"Name": "fuzz-network"}).expect(201)
    api.post("/volumes/create", {"Name": "fuzz-volume"}).expect(201)
    with requests.Session() as opened:
        opened.mount(BASE, UnixHTTPAdapter(f"http+unix://{daemon.socket}", timeout=30))
        yield opened
    daemon.reset()


@schema.parametrize()
@settings(
    max_examples=20, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
def test_no_request_is_an_error_of_the_daemon(case: schemathesis.Case, session: requests.Session) -> None:
    for undo in ("unpause", "start"):  # what requests before this one may have done
        session.post(f"{BASE}/containers/fuzz-running/{undo}")
    case.query = {**(case.query or {}), **FINITE.get(case.path, {})}
    if case.path.endswith("/wait") and case.path_parameters.get("id") not in ("fuzz-made", "fuzz-missing"):
        case.path_parameters["id"] = "fuzz-made"  # A digit may be how the id of the one that runs begins.
    answer = case.call(base_url=f"{BASE}/v1.50", session=session)
    known = DOCKERDS_OWN.get(case.path)
    if answer.status_code in (500, 503) and known and re.match(known, answer.json()["message"]):
        return
    assert answer.status_code < 500, (answer.status_code, answer.text)
