"""The local copy of a log that is sent elsewhere, so that it can be read back ("dual logging")."""

from __future__ import annotations

from collections.abc import Mapping

from longshore.logs.info import LogInfo
from longshore.logs.local import LocalDriver

_PREFIX = "cache-"


def open_cache(options: Mapping[str, str], info: LogInfo) -> LocalDriver:
    """Open or go on with it; cache-max-size, cache-max-file and cache-compress are the local driver's.

    Raises InvalidParameter and OSError.
    """
    names = ("max-size", "max-file", "compress")
    chosen = {name: options[_PREFIX + name] for name in names if _PREFIX + name in options}
    return LocalDriver.open(chosen, info)
