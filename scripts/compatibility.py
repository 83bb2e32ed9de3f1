"""Writes docs/compatibility.md: every operation and field of the Engine API, and what the engine makes of it.

compatibility.py OUTPUT            write the document from the engine's own table of routes, and its tests
compatibility.py --extract YAML    renew the lists of operations and fields from Docker's API description
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fields

from longshore.api.router import ROUTES
from longshore.api.routes import Route

OPERATIONS = Path(__file__).resolve().parent / "data/engine-api-v1.50-operations.json"
HEADING = """\
# Compatibility

Every operation of Docker's Engine API 1.50, and whether this version of Longshore serves it. Made by
`make docs` from the daemon's own table of routes; a test fails when it is out of date. Below stands every
field of a container's configuration, with the tests that prove it.

*read* lists the query parameters that the daemon reads; *not read* those that Docker documents and that it
ignores.
"""


def main(arguments: list[str]) -> None:
    """Run as described above."""
    match arguments:
        case ["--extract", source]:
            import yaml

            description = yaml.safe_load(Path(source).read_text())
            OPERATIONS.write_text(json.dumps(extract(description), indent=1) + "\n")
            fields.FIELDS.write_text(json.dumps(fields.extract(description), indent=1) + "\n")
        case [output]:
            Path(output).write_text(document())
        case _:
            sys.exit(__doc__)


def document() -> str:
    """The whole document."""
    operations = json.loads(OPERATIONS.read_text())
    served = sum("| yes |" in _row(operation) for operation in operations)
    lines = [HEADING, f"{served} of {len(operations)} operations are served.", ""]
    section = None
    for operation in operations:
        if operation["tag"] != section:
            section = operation["tag"]
            lines += [
                f"## {section}",
                "",
                "| operation | served | read | not read |",
                "| --- | --- | --- | --- |",
            ]
        lines.append(_row(operation))
        if operation is operations[-1] or operations[operations.index(operation) + 1]["tag"] != section:
            lines.append("")
    lines += ["## Longshore's own", "", "| operation | what it gives |", "| --- | --- |", *_own(), ""]
    lines += fields.section()
    return "\n".join(lines)


def extract(description: dict[str, Any]) -> list[dict[str, Any]]:
    """Operations in the order of the API's sections: method, path, tag, query parameters."""
    order = [tag["name"] for tag in description["tags"]]
    found = [
        {
            "method": method.upper(),
            "path": path,
            "tag": operation["tags"][0],
            "query": [item["name"] for item in operation.get("parameters", []) if item["in"] == "query"],
        }
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    return sorted(found, key=lambda operation: [*order, operation["tag"]].index(operation["tag"]))


def _row(operation: dict[str, Any]) -> str:
    route = _route(operation)
    name = f"`{operation['method']} {operation['path']}`"
    if route is None:
        return f"| {name} | no | | |"
    if route.handler.__module__.endswith(".swarm"):
        return f"| {name} | refused: this node is no part of a swarm | | |"
    read = route.query.split()
    ignored = [parameter for parameter in operation["query"] if parameter not in read]
    return f"| {name} | yes | {' '.join(read)} | {' '.join(ignored)} |"


def _route(operation: dict[str, Any]) -> Route | None:
    shape = _shape(operation["path"])
    for route in ROUTES:
        if route.method == operation["method"] and _shape(route.path) == shape:
            return route
    return None


def _shape(path: str) -> str:
    """A path template without the names of its placeholders."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def _own() -> Iterator[str]:
    for route in ROUTES:
        if route.path.startswith("/longshore/"):
            summary = (route.handler.__doc__ or "").strip().splitlines()[0].rstrip(".")
            yield f"| `{route.method} {re.sub(r':[^}]*', '', route.path)}` | {summary} |"


if __name__ == "__main__":
    main(sys.argv[1:])
