"""`longshored`: dockerd's command line, made from the configuration's own table of options."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Sequence
from typing import NoReturn, get_origin

from longshore import __version__
from longshore.cli.logging import set_up_logging
from longshore.config import DEFAULT_CONFIG_FILE, Config, Directive, directives, load
from longshore.config.flags import SYNTAX, parse_flags
from longshore.config.loading import warn_of_ignored
from longshore.errors import InvalidParameter

_M_ARENA_MAX = -8
"""mallopt(3): how many arenas glibc may make."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon. Returns the exit status."""
    parser = build_parser()
    given = vars(parser.parse_args(arguments))
    config_file = given.pop("config_file", None)
    validate_only = given.pop("validate", False)
    try:
        config = load(
            parse_flags(given), config_file or DEFAULT_CONFIG_FILE, file_required=config_file is not None
        )
    except InvalidParameter as exc:
        print(exc, file=sys.stderr)
        return 1
    if validate_only:
        print("configuration OK")
        return 0
    set_up_logging("debug" if config.debug else config.log_level, config.log_format)
    warn_of_ignored(config)
    return _run(config)


def build_parser() -> argparse.ArgumentParser:
    """The command line. An option that is not given leaves no trace in the result."""
    parser = _Parser(
        "longshored",
        usage="longshored [OPTIONS]",
        description="A container engine that speaks the Docker Engine API.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config-file",
        metavar="string",
        help=f'Daemon configuration file (default "{DEFAULT_CONFIG_FILE}")',
    )
    parser.add_argument("--validate", action="store_true", help="Validate daemon configuration and exit")
    parser.add_argument(
        "-v",
        "--version",
        action="version",
        version=f"Longshore version {__version__}",
        help="Print version information and quit",
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for directive in directives():
        if directive.flag:
            title = directive.option.group
            group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
            _add(group, directive)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        message = message.replace("unrecognized arguments: ", "unknown flag: ")
        self.exit(125, f"{message}\nSee 'longshored --help'.\n")


def _add(group: argparse._ArgumentGroup, directive: Directive) -> None:
    option = directive.option
    names = [f"-{option.short}"] if option.short else []
    names.append(f"--{directive.flag}")
    text = option.help
    if option.choices:
        text += " (" + "|".join(f'"{choice}"' for choice in option.choices if choice) + ")"
    if directive.default not in ("", [], {}, False, 0):
        text += (
            f" (default {str(directive.default).lower() if directive.kind is bool else directive.default})"
        )
    if option.unsupported:
        text += f" [refused: {option.unsupported}]"
    if option.ignored:
        text += f" [no effect: {option.ignored}]"
    text = text.replace("%", "%%")
    if directive.kind is bool:
        group.add_argument(
            *names, dest=directive.attribute, nargs="?", const="true", metavar="bool", help=text
        )
    elif get_origin(directive.kind) in (list, dict):
        group.add_argument(
            *names,
            dest=directive.attribute,
            action="append",
            metavar=SYNTAX.get(directive.attribute, "list"),
            help=text,
        )
    else:
        group.add_argument(
            *names, dest=directive.attribute, metavar="int" if directive.kind is int else "string", help=text
        )


def _run(config: Config) -> int:
    _prepare_process()
    from longshore.daemon import run

    return run(config)


def _prepare_process() -> None:
    """As many files as allowed, Docker's umask, and memory that is given back."""
    os.umask(0o022)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # An arena for each thread that runs blocking calls would never be returned to the kernel.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


if __name__ == "__main__":
    sys.exit(main())
