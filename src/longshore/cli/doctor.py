"""`longshore doctor`: what this machine can and cannot do for containers, and how to mend it.

It needs no daemon and changes nothing. A problem keeps containers, or some of their networks, from working;
a limit takes one ability away.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from longshore.cli.checks import CHECKS, Finding, Level, Machine
from longshore.linux import host

_MARKS: dict[Level, tuple[str, str]] = {
    "ok": ("✓", "\x1b[32m"),
    "limit": ("!", "\x1b[33m"),
    "problem": ("✗", "\x1b[31m"),
}
_RESET = "\x1b[0m"


def run(data_root: str, *, as_json: bool) -> int:
    """Print every finding. Returns 1 if there is a problem, else 0."""
    findings = examine(Path(data_root))
    healthy = all(finding.level != "problem" for finding in findings)
    if as_json:
        print(json.dumps({"ok": healthy, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print("\n".join(describe(findings, colour)))
    return 0 if healthy else 1


def examine(data_root: Path) -> list[Finding]:
    """What each check found, in the order of the table."""
    machine = Machine(host.discover(), data_root)
    return [finding for check in CHECKS for finding in check(machine)]


def describe(findings: list[Finding], colour: bool = False) -> list[str]:
    """Findings as text: a line each, below it how to mend what is not well, and a summary."""
    lines = []
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark, code = _MARKS[finding.level]
        lines.append(f"{f'{code}{mark}{_RESET}' if colour else mark} {finding.name:{width}}  {finding.found}")
        if finding.mend:
            lines.append(f"{'':{width + 4}}→ {finding.mend}")
    problems = sum(finding.level == "problem" for finding in findings)
    limits = sum(finding.level == "limit" for finding in findings)
    lines += ["", _summary(problems, limits)]
    return lines


def _summary(problems: int, limits: int) -> str:
    if problems:
        return f"{problems} problem{'s' * (problems > 1)} to mend, {limits} limit{'s' * (limits != 1)}."
    if limits:
        return f"Containers can run here; {limits} abilit{'ies are' if limits > 1 else 'y is'} limited."
    return "Containers can run here."
