"""`longshore`: what the docker CLI has no word for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from longshore import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, or 1 if something is wrong, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("longshore", description="Tools around longshored, a container engine.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    doctor = commands.add_parser("doctor", help="what this machine can and cannot do, and how to mend it")
    doctor.add_argument("--data-root", default="/var/lib/longshore", help="where the engine keeps its state")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=_doctor)

    trace = commands.add_parser("trace", help="what the start of a container spent its time on")
    trace.add_argument("container", nargs="?", help="name or id; without it, what was started last")
    trace.add_argument("-H", "--host", help="the daemon's socket (default: DOCKER_HOST)")
    trace.add_argument("--json", action="store_true", help="print the trace as JSON")
    trace.set_defaults(run=_trace)

    version = commands.add_parser("version", help="the version of this program")
    version.set_defaults(run=_version)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from longshore.cli.doctor import run

    return run(options.data_root, as_json=options.json)


def _trace(options: argparse.Namespace) -> int:
    from longshore.cli.trace import run

    return run(options.container, options.host, as_json=options.json)


def _version(_: argparse.Namespace) -> int:
    print(f"longshore {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
