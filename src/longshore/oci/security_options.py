"""`--security-opt`: one string for each setting, in spellings old and new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from longshore.errors import InvalidParameter

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}


@dataclass
class SecurityOptions:
    """What the strings said; None and empty are "not said"."""

    no_new_privileges: bool | None = None
    writable_cgroups: bool | None = None
    seccomp: str = ""
    """A profile as JSON (clients send the file's content), or `unconfined` or `builtin`."""
    apparmor: str = ""
    labels: list[str] = field(default_factory=list)
    """SELinux labels: `disable`, `user:…`, `role:…`, `type:…`, `level:…`."""


def parse_security_options(options: Sequence[str] | None) -> SecurityOptions:
    """Parse `HostConfig.SecurityOpt`. Raises InvalidParameter with moby's messages."""
    result = SecurityOptions()
    for option in options or ():
        if option == "no-new-privileges":
            result.no_new_privileges = True
        elif option == "writable-cgroups":
            result.writable_cgroups = True
        elif option == "disable":
            result.labels.append("disable")
        else:
            _parse_pair(result, option)
    return result


def _parse_pair(result: SecurityOptions, option: str) -> None:
    separator = "=" if "=" in option else ":"  # the colon is the spelling before Docker 1.11
    key, found, value = option.partition(separator)
    if not found:
        raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
    if key == "label":
        result.labels.append(value)
    elif key == "apparmor":
        result.apparmor = value
    elif key == "seccomp":
        result.seccomp = value
    elif key == "no-new-privileges":
        result.no_new_privileges = _boolean(value, option)
    elif key == "writable-cgroups":
        result.writable_cgroups = _boolean(value, option)
    else:
        raise InvalidParameter(f'invalid --security-opt 2: "{option}"')


def _boolean(value: str, option: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
