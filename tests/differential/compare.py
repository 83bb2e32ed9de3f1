"""The rules by which two daemons' answers are the same.

Statuses and error messages are equal once ids, addresses and times are replaced by placeholders. JSON has
the same shape: the same keys, types, nulls and emptiness; the values themselves are compared where a case
names them. What the older API of the oracle explains is listed in ALLOWED, each with its reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from harness import Client, Daemon, Response

SELF = os.environ.get("LONGSHORE_DIFFERENTIAL") == "dockerd"
"""Compare dockerd with itself."""


@dataclass(frozen=True)
class Request:
    """One request as data. `body` is bytes as they are, anything else but None as JSON."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A request, what comes before it, and how its answer is compared."""

    name: str
    request: Request
    given: tuple[Request, ...] = ()
    same: tuple[str, ...] = ()
    """Dotted paths whose values are equal, not only their shapes; "" is the whole answer."""
    raw: bool = False
    """The body is not JSON: compare the bytes."""
    status_only: bool = False
    newer: str | None = None
    """The error message of newer Docker versions where it differs from the oracle's: ours must be this."""
    sooner: str | None = None
    """Our message where we refuse at once what the oracle finds out at the start only, or never."""
    lacking: str | None = None
    """Our message where we refuse what we cannot do."""
    same_headers: tuple[str, ...] = ("Content-Type",)
    """Headers that are equal."""
    but: dict[str, str] = field(default_factory=dict)
    """Paths that differ in this case, each with the reason."""
    version: str = "/v1.41"


def case(name: str, line: str, body: Any = None, **options: Any) -> Case:
    """Write a case as `case("missing", "GET /containers/nope/json")`."""
    method, path = line.split(" ", 1)
    headers = options.pop("headers", {})
    return Case(name, Request(method, path, body, headers), **options)


def request(line: str, body: Any = None) -> Request:
    """Write a step as `request("POST /containers/a/start")`."""
    method, path = line.split(" ", 1)
    return Request(method, path, body)


LOWERCASE = "invalid reference format: repository name (library/{}) must be lowercase"
"""What newer versions say of an image's name in capitals."""

NEW = "since a newer API version than the oracle's"
GONE = "left out by newer versions for every API version"
ALLOWED: dict[str, str] = {
    r"HostConfig\.(KernelMemory|KernelMemoryTCP|Capabilities)": GONE,
    r"HostConfig\.(Annotations|CgroupnsMode|Init|StorageOpt|Tmpfs|Mounts|Sysctls)": "omitted when empty",
    r"(.*\.)?Config\.(MacAddress|OnBuild|Entrypoint|StopTimeout|Healthcheck)": "omitted when empty",
    r"(.*\.)?ArgsEscaped": "left over from builds",
    r"(.*\.)?(DNSNames|GwPriority|ImageManifestDescriptor|Descriptor|Manifests)": NEW,
    r"NetworkSettings\.(SecondaryIPAddresses|SecondaryIPv6Addresses|Bridge|HairpinMode)": GONE,
    r"NetworkSettings\.LinkLocalIPv6(Address|PrefixLen)": GONE,
    r"GraphDriver(\..*)?": "depends on the image's layers on this machine",
    r"(.*\.)?(EnableIPv4|ConfigOnly|ConfigFrom|Peers|Status)": NEW,
    r"State\.Health": "omitted without a health check",
    r"Container(Config)?(\..*)?": GONE,
    r"(.*\.)?(VirtualSize|Parent|DockerVersion)": GONE,
    r"(.*\.)?Options\.com\.docker\.network\.enable_ipv[46]": NEW,
    r"(.*\.)?Metadata(\..*)?": "when the image was last tagged",
    r"BuilderSize": GONE,
    r"BuildCache": "an empty list in newer versions, null before",
    r"IPAM\.Config\[\]\.Gateway": "newer versions show the default bridge's as well",
    r"(.*\.)?RepoDigests": "an empty list in newer versions, null before",
    r"HostConfig\.Runtime": "always set in newer versions",
    r"Error": "omitted without an error in newer versions",
}
_ALLOWED = re.compile("|".join(f"(?:{pattern})" for pattern in ALLOWED))

_PLACEHOLDERS = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<short id>"),
    (re.compile(r"/tmp/lsh-[a-z]+-\w+"), "<root>"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"), "<address>"),
    (re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "<mac>"),
    (re.compile(r"\bpid \d+"), "pid <pid>"),
)


def normal(value: Any) -> Any:
    """`value` with ids, addresses and times replaced by placeholders, at any depth."""
    if isinstance(value, str):
        for pattern, placeholder in _PLACEHOLDERS:
            value = pattern.sub(placeholder, value)
        return value
    if isinstance(value, dict):
        return {normal(key): normal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normal(item) for item in value]
    return value


def differences(case: Case, theirs: Response, ours: Response, strict: bool = False) -> list[str]:
    """How our answer differs from the oracle's, a line each. `strict`: both are the same program."""
    if not strict and _is_newer_status(case, theirs, ours):
        return []
    if theirs.status != ours.status:
        return [f"status: {theirs.status} {theirs.body[:300]!r}, ours {ours.status} {ours.body[:300]!r}"]
    if case.status_only:
        return []
    if ours.status >= 400 and ours.headers.get("Content-Type") != "application/json" and ours.body:
        return [f"an error that is no JSON: {ours.headers.get('Content-Type')!r}"]
    if ours.status >= 400 and ours.body and not re.fullmatch(rb'\{"message":".+"\}\n', ours.body):
        return [f"an error unlike dockerd's: {ours.body!r}"]
    found = [] if ours.status >= 400 else list(_header_differences(case.same_headers, theirs, ours))
    if case.raw:
        return found + ([] if theirs.body == ours.body else [f"body: {theirs.body!r}, ours {ours.body!r}"])
    if not theirs.body or not ours.body:
        return found + ([] if theirs.body == ours.body else [f"body: {theirs.body!r}, ours {ours.body!r}"])
    if theirs.status >= 400:
        expected, got = _error(theirs), _error(ours)
        if _plain(expected) != _plain(got):
            found.append(f"message: {expected!r}, ours {got!r}")
        return found
    found += [
        difference
        for difference in shape_differences(_documents(theirs), _documents(ours), "", strict)
        if strict or difference.partition(":")[0] not in case.but
    ]
    for path in case.same:
        wanted, got = (_unordered(normal(at(_documents(answer), path))) for answer in (theirs, ours))
        if wanted != got:
            found.append(f"{path or 'answer'}: {wanted!r}, ours {got!r}")
    return found


def _is_newer_status(case: Case, theirs: Response, ours: Response) -> bool:
    """Newer versions answer the same words with a better status: 400, 404, 409 where it was 500 (or 400)."""
    if case.sooner is not None:
        return (
            theirs.status < 300 and 400 <= ours.status < 500 and _plain(case.sooner) == _plain(_error(ours))
        )
    if case.lacking is not None:
        return theirs.status < 300 and ours.status == 501 and case.lacking == _error(ours)
    if case.newer is not None and 400 <= ours.status < 500:
        return _plain(case.newer) == _plain(_error(ours))
    if theirs.status not in (400, 500) or not 400 <= ours.status < 500 or theirs.status == ours.status:
        return False
    return case.status_only or _plain(_error(ours)) in (_plain(_error(theirs)), _plain(case.newer))


def _plain(message: Any) -> Any:
    """A message to compare: newer versions begin theirs with a small letter, and say what they were doing."""
    if not isinstance(message, str):
        return message
    return normal(message).casefold().removeprefix("failed to create task for container: ")


def _error(response: Response) -> Any:
    """An error's message; a connection about to be handed over gets it as plain text."""
    try:
        return response.json.get("message")
    except ValueError:
        return response.body.decode().strip()


def _unordered(value: Any) -> Any:
    """Lists of objects come in no order that Docker promises."""
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return sorted(value, key=repr)
    return value


def _documents(response: Response) -> Any:
    try:
        return response.json
    except ValueError:
        return response.lines


def _header_differences(names: tuple[str, ...], theirs: Response, ours: Response) -> Iterator[str]:
    for name in names:
        wanted, got = theirs.headers.get(name), ours.headers.get(name)
        # newer versions name the type of a stream, the oracle leaves it out
        if wanted and wanted.replace(" ", "") != (got or "").replace(" ", ""):
            yield f"header {name}: {wanted!r}, ours {got!r}"


def shape_differences(theirs: Any, ours: Any, path: str = "", strict: bool = False) -> list[str]:
    """Keys, types, nulls and emptiness that are not the same, below `path`."""
    if not strict and path and _ALLOWED.fullmatch(path):
        return []
    if _kind(theirs) != _kind(ours):
        return [f"{path or 'answer'}: {_kind(theirs)} ({theirs!r:.80}), ours {_kind(ours)} ({ours!r:.80})"]
    if isinstance(theirs, dict):
        return list(_object_differences(theirs, ours, path, strict))
    if isinstance(theirs, list):
        if bool(theirs) != bool(ours):
            return [f"{path or 'answer'}: {theirs!r:.80}, ours {ours!r:.80}"]
        if theirs:
            return shape_differences(theirs[0], ours[0], f"{path}[]" if path else "", strict)
    return []


def _object_differences(
    theirs: dict[str, Any], ours: dict[str, Any], path: str, strict: bool
) -> Iterator[str]:
    theirs, ours = ({normal(key): value for key, value in side.items()} for side in (theirs, ours))
    for key in sorted(theirs.keys() | ours.keys()):
        below = f"{path}.{key}" if path else key
        if key in theirs and key in ours:
            yield from shape_differences(theirs[key], ours[key], below, strict)
        elif strict or not _ALLOWED.fullmatch(below):
            yield f"{below}: {'only the oracle has it' if key in theirs else 'only ours has it'}"


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "array", dict: "object"}[type(value)]


def at(document: Any, path: str) -> Any:
    """The value at a dotted path; array items by number, `*` for each; None where there is nothing."""
    if not path:
        return document
    first, _, rest = path.partition(".")
    if first == "*" and isinstance(document, list):
        return [at(item, rest) for item in document]
    if isinstance(document, list):
        return at(document[int(first)], rest) if int(first) < len(document) else None
    if isinstance(document, dict):
        return at(document.get(first), rest)
    return None


def play(daemon: Daemon, case: Case) -> Response:
    """The answer to the case's request, after what comes before it."""
    for step in case.given:
        answer = send(daemon, step)
        assert answer.status < 400, f"{step}: {answer.status} {answer.body!r}"
    return send(daemon, case.request, case.version)


def send(daemon: Daemon, step: Request, version: str = "/v1.41") -> Response:
    """The answer to one request."""
    client = Client(daemon.socket, version="", timeout=30)
    return client.request(step.method, version + step.path, step.body, headers=step.headers)
