"""dockerd and longshored side by side: medians, and what longshored takes of dockerd's time.

Both run at once, each in network, mount and process namespaces of its own, on the same file system and with
the same runc. Every round measures one, then the other, so that what the machine does meanwhile hits both.

    bench/run.py [--only NAME …] [--rounds N] [--json] [--against dockerd]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from harness import Busybox, Daemon, Dockerd, Longshored
from measures import MEASURES, Measure
from networks import NETWORK_MEASURES

ALL = [*MEASURES, *NETWORK_MEASURES]


def main() -> int:
    """Run the benchmarks that were asked for; 1 if a target was missed."""
    options = _arguments()
    if reason := Dockerd.missing():
        sys.exit(f"bench: {reason}")
    chosen = [measure for measure in ALL if not options.only or measure.name in options.only]
    results = []
    with ExitStack() as stack:
        pairs: dict[tuple[str | None, tuple[str, ...]], list[Daemon]] = {}
        if not options.json:
            print(f"{'':32}{'dockerd':>12}{'longshored':>12}{'ratio':>8}{'target':>9}", flush=True)
        for measure in chosen:
            if reason := measure.missing():
                print(f"{measure.name}: not measured, {reason}", file=sys.stderr, flush=True)
                continue
            kind = measure.where, measure.flags
            if kind not in pairs:
                pairs[kind] = _daemons(stack, options.against, *kind)
            result = compare(measure, pairs[kind], options.rounds or measure.rounds)
            results += result
            if not options.json:
                for line in result:
                    print(_row(line), flush=True)
    if options.json:
        json.dump(results, sys.stdout, indent=2)
        print()
    return 0 if all(result["met"] for result in results) else 1


def compare(measure: Measure, pair: Sequence[Daemon], rounds: int) -> list[dict[str, Any]]:
    """The medians of one measure on both daemons; one result for each of the values it yields."""
    samples: list[dict[str, list[float]]] = [{}, {}]
    for number in range(rounds + measure.warm_up):
        for side, daemon in enumerate(pair):
            try:
                values = measure.take(daemon)
            finally:
                daemon.reset()
            if number >= measure.warm_up:
                for name, value in values.items():
                    samples[side].setdefault(name, []).append(value)
    results = []
    for name in samples[0]:
        theirs, ours = (statistics.median(side[name]) for side in samples)
        target = measure.targets.get(name)
        limit = measure.limits.get(name)
        ratio = ours / theirs if theirs else float("inf")
        results.append(
            {
                "name": f"{measure.name}{f' {name}' if name else ''}",
                "unit": measure.unit,
                "dockerd": theirs,
                "longshored": ours,
                "ratio": ratio,
                "target": target,
                "limit": limit,
                "met": (target is None or ratio <= target) and (limit is None or ours <= limit),
                "rounds": rounds,
            }
        )
    return results


def _row(result: dict[str, Any]) -> str:
    theirs, ours = (_amount(result[side], result["unit"]) for side in ("dockerd", "longshored"))
    target = "" if result["target"] is None else f"{result['target']:.2f}"
    if result["limit"] is not None:
        target = f"<{_amount(result['limit'], result['unit'])}"
    mark = "" if result["met"] else "  missed"
    return f"{result['name']:32}{theirs:>12}{ours:>12}{result['ratio']:>8.2f}{target:>9}{mark}"


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:.1f} MB"
    if unit == "of a core":
        return f"{value:.1%}"
    return f"{value * 1000:.1f} ms" if value < 10 else f"{value:.2f} s"


def _daemons(stack: ExitStack, against: str, where: str | None, flags: tuple[str, ...]) -> list[Daemon]:
    tempfile.tempdir = where
    scratch = Path(tempfile.mkdtemp(prefix="lsh-bench-"))
    stack.callback(shutil.rmtree, scratch, ignore_errors=True)
    archive = Busybox.archive(scratch / "busybox.tar")
    other = Dockerd(*flags) if against == "dockerd" else Longshored(*flags, isolated=True)
    pair: list[Daemon] = [Dockerd(*flags), other]
    for daemon in pair:
        stack.callback(daemon.sweep)
        stack.callback(daemon.destroy)
    tempfile.tempdir = None
    for daemon in pair:
        daemon.start()
        daemon.load(archive)
    return pair


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = [measure.name for measure in ALL]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"any of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help="how often each is measured (a number for each otherwise)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--against", choices=("longshored", "dockerd"), default="longshored", help="dockerd: check the ruler"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
