"""The documents that are made from the code say what the code says, and no test can claim too much."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_compatibility_is_up_to_date(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, ROOT / "scripts/compatibility.py", tmp_path / "compatibility.md"], check=True
    )
    written = (ROOT / "docs/compatibility.md").read_text()
    assert (tmp_path / "compatibility.md").read_text() == written, "run `make docs`"


@pytest.fixture
def fields(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import fields

    return fields


def claims(fields: Any, directory: Path, text: str) -> list[tuple[str, str, str]]:
    """What a test file with this text proves, where the API has nothing but Mount.Type and Mount.Source."""
    (directory / "tests").mkdir(exist_ok=True)
    (directory / "tests/test_it.py").write_text(text)
    found = fields.proofs(directory / "tests", {"Mount.Type", "Mount.Source"})
    return [(proof.field, proof.test, proof.only) for proof in found]


def test_what_is_a_proof(fields: Any, tmp_path: Path) -> None:
    text = """
@pytest.mark.parametrize("x", [1, pytest.param(2, marks=[proves("Mount.Type", only="record"), other])])
@pytest.mark.proves("Mount.Source", "Mount.Type")
@pytest.mark.skipif(not MIGHTY, reason="needs might")
def test_one(x): ...
def test_two(): ...
"""
    assert sorted(claims(fields, tmp_path, text)) == [
        ("Mount.Source", "test_one", ""),
        ("Mount.Type", "test_one", ""),
        ("Mount.Type", "test_one", "record"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("@proves('Mount.Nosuch')\ndef test_it(): ...", "'Mount.Nosuch' is no field of the API"),
        ("@proves(*NAMES)\ndef test_it(): ...", r"\*NAMES is no field of the API"),
        ("@proves(f'Mount.{x}')\ndef test_it(): ...", "is no field of the API"),
        ("@proves()\ndef test_it(): ...", "a proof of nothing"),
        ("@proves('Mount.Type', only='hope')\ndef test_it(): ...", "only= one of specification, record"),
        ("@proves('Mount.Type', needs=LUCK)\ndef test_it(): ...", "may say only= and needs="),
        ("@proves('Mount.Type', perhaps='x')\ndef test_it(): ...", "may say only= and needs="),
        ("@proves('Mount.Type')\ndef helper(): ...", "must be a marker of a test"),
        ("pytestmark = proves('Mount.Type')\ndef test_it(): ...", "must be a marker of a test"),
        ("CASES = [param(1, marks=proves('Mount.Type'))]\ndef test_it(): ...", "must be a marker of a test"),
        ("@pytest.mark.skip\n@proves('Mount.Type')\ndef test_it(): ...", "never runs or may fail"),
        (
            "@pytest.mark.xfail(reason='')\n@proves('Mount.Type')\ndef test_it(): ...",
            "never runs or may fail",
        ),
    ],
)
def test_what_is_none(fields: Any, tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(fields.BadProofError, match=problem):
        claims(fields, tmp_path, text)
