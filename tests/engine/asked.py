"""Containers asked for with the API's own fields, and what a process in them finds."""

from __future__ import annotations

import itertools
from typing import Any

from harness import Client, Response
from harness.http import split_frames

_numbers = itertools.count()


def create(api: Client, body: dict[str, Any], name: str = "") -> Response:
    """The answer to a creation of a busybox container that sleeps, if `body` does not say otherwise."""
    asked = {"Image": "busybox", "Cmd": ["sleep", "600"], **body}
    return api.post("/containers/create", asked, name=name or f"asked{next(_numbers)}")


def start(api: Client, body: dict[str, Any], name: str = "") -> str:
    """The id of a container that runs."""
    id = str(create(api, body, name).expect(201).json["Id"])
    api.post(f"/containers/{id}/start").expect(204)
    return id


def run(api: Client, script: str, body: dict[str, Any]) -> str:
    """What a shell in a container of these fields writes, without the last line's end."""
    id = start(api, {"Cmd": ["sh", "-c", script], **body})
    api.post(f"/containers/{id}/wait").expect(200)
    logs = api.get(f"/containers/{id}/logs", stdout=1, stderr=1).expect(200).body
    text = logs if body.get("Tty") else b"".join(data for _, data in split_frames(logs))
    return text.decode().replace("\r\n", "\n").removesuffix("\n")


def refusal(api: Client, body: dict[str, Any]) -> tuple[int, str]:
    """Status and message of a creation, or else of the start, that fails."""
    answer = create(api, body)
    if answer.status == 201:
        answer = api.post(f"/containers/{answer.json['Id']}/start")
    assert answer.status >= 400, "it was not refused"
    return answer.status, answer.message


def inspect(api: Client, id: str) -> Any:
    """GET /containers/{id}/json."""
    return api.get(f"/containers/{id}/json").expect(200).json


def at(value: Any, path: str) -> Any:
    """What lies at a dotted path."""
    for name in path.split("."):
        value = value[name]
    return value
