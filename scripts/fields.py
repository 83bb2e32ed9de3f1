"""Every field of a container's configuration in the Engine API, and the test that proves it is followed.

A test says what it proves with `@pytest.mark.proves("HostConfig.Memory", …)`, or, for one of its cases, with
`marks=pytest.mark.proves(…)` in `pytest.param`. `only=` says that it does not prove all of it, `needs=` what
few machines have and it is skipped without. The tests are read, never run. What is no proof is an error:
a name that the API does not have, a marker that is no decorator of a test, a test that never runs.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ROOT / "scripts/data/engine-api-v1.50-fields.json"
TESTS = ROOT / "tests"

SECTIONS = ("ContainerConfig", "HostConfig", "Mount", "EndpointSettings", "HealthConfig")
"""The API's definitions that are listed, each as a section; Resources is a part of HostConfig."""

LIMITS = {
    "": "yes",
    "specification": "yes, tested up to the OCI specification",
    "record": "kept and shown; Docker too makes nothing of it",
}
"""What `only=` may say of a proof, and what the table makes of it."""

HEADING = """\
# Fields

Every field of the objects that describe a container, whether it is honoured, and the tests that prove it. A
field without a test is shown as not proven, whatever the code does.
"""


class BadProofError(Exception):
    """A marker that proves nothing; the text says where."""


@dataclass(frozen=True)
class Proof:
    """A test that proves a field; `only` is a key of LIMITS, `needs` what the test is skipped without."""

    field: str
    test: str
    path: str
    only: str = ""
    needs: str = ""


def section(tests: Path = TESTS) -> list[str]:
    """Lines of the document. Raises BadProofError."""
    fields: dict[str, dict[str, str]] = json.loads(FIELDS.read_text())
    found = list(proofs(tests, {f"{name}.{field}" for name in fields for field in fields[name]}))
    lines = [HEADING]
    proven = total = 0
    body: list[str] = []
    for name, properties in fields.items():
        body += [f"## {name}", "", "| field | honoured | proven by |", "| --- | --- | --- |"]
        for field, platform in properties.items():
            mine = [proof for proof in found if proof.field == f"{name}.{field}"]
            total += platform == ""
            proven += platform == "" and bool(mine)
            body.append(_row(field, platform, mine))
        body.append("")
    return [*lines, f"{proven} of {total} fields that Linux has are proven by tests.", "", *body]


def extract(description: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Dotted names of the fields of each section, with "Windows only" for those Linux does not have."""
    definitions = description["definitions"]
    return {name: dict(_properties(definitions[name], definitions)) for name in SECTIONS}


def proofs(tests: Path, known: set[str]) -> Iterator[Proof]:
    """Every proof in the test files below `tests`. Raises BadProofError."""
    for path in sorted(tests.rglob("*.py")):
        tree = ast.parse(path.read_text(), str(path))
        used = set()
        for function in _tests(tree):
            if markers := list(_markers(function.decorator_list)):
                _check_it_runs(function, path)
            for call in markers:
                used.add(call)
                limits = _limits(call, path)
                for field in _names(call, known, path):
                    where = path.relative_to(tests.parent).as_posix()
                    yield Proof(field, function.name, where, limits["only"], limits["needs"])
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _is_marker(node) and node not in used:
                raise BadProofError(f"{path}:{node.lineno}: a proof must be a marker of a test")


def _row(field: str, platform: str, mine: list[Proof]) -> str:
    tests = {f"[{proof.test}](../{proof.path})": None for proof in mine}
    if platform:
        honoured = platform
    elif not mine:
        honoured = "**not proven**"
    else:
        best = min(mine, key=lambda proof: (bool(proof.only), bool(proof.needs)))
        honoured = LIMITS[best.only] + (f"; tested only where there is {best.needs}" if best.needs else "")
    return f"| `{field}` | {honoured} | {' '.join(tests)} |"


def _properties(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for part in schema.get("allOf", ()):
        yield from _properties(_resolve(part, definitions), definitions)
    for name, value in schema.get("properties", {}).items():
        # Go names the protocols and paths of a map; only lists and objects have fields of their own.
        if name in ("Mounts", "Healthcheck"):
            yield name, ""  # sections of their own
            continue
        platform = "Windows only" if "(Windows only)" in _text(value) else ""
        inner = _resolve(value.get("items") or value, definitions)
        nested = list(_properties(inner, definitions))
        if not nested:
            yield name, platform
        for field, of_field in nested:
            yield f"{name}.{field}", of_field or platform


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    return definitions[reference.rpartition("/")[2]] if reference else schema


def _text(value: dict[str, Any]) -> str:
    return str(value.get("description", ""))


def _tests(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node


def _markers(decorators: list[ast.expr]) -> Iterator[ast.Call]:
    for decorator in decorators:
        for node in ast.walk(decorator):
            if isinstance(node, ast.Call) and _is_marker(node):
                yield node


def _is_marker(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name == "proves"


def _check_it_runs(function: ast.FunctionDef | ast.AsyncFunctionDef, path: Path) -> None:
    """A condition may skip a test on some machines; `skip` and `xfail` say that it proves nothing."""
    for decorator in function.decorator_list:
        for node in ast.walk(decorator):
            if isinstance(node, ast.Attribute) and node.attr in ("skip", "xfail"):
                raise BadProofError(f"{path}:{function.lineno}: {function.name} never runs or may fail")


def _limits(call: ast.Call, path: Path) -> dict[str, str]:
    """What `only=` and `needs=` say."""
    limits = {"only": "", "needs": ""}
    for keyword in call.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if keyword.arg not in limits or not isinstance(value, str) or not value:
            raise BadProofError(f"{path}:{call.lineno}: a proof may say only= and needs=, each a text")
        limits[keyword.arg] = value
    if limits["only"] not in LIMITS:
        raise BadProofError(f"{path}:{call.lineno}: only= one of {', '.join(filter(None, LIMITS))}")
    return limits


def _names(call: ast.Call, known: set[str], path: Path) -> Iterator[str]:
    if not call.args:
        raise BadProofError(f"{path}:{call.lineno}: a proof of nothing")
    for argument in call.args:
        if not isinstance(argument, ast.Constant) or argument.value not in known:
            raise BadProofError(f"{path}:{call.lineno}: {ast.unparse(argument)} is no field of the API")
        yield argument.value
