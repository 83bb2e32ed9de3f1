"""The documents that are made from the code say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_compatibility_is_up_to_date(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, ROOT / "scripts/compatibility.py", tmp_path / "compatibility.md"], check=True
    )
    written = (ROOT / "docs/compatibility.md").read_text()
    assert (tmp_path / "compatibility.md").read_text() == written, "run `make docs`"
