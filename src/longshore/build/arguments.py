"""Build arguments: which are declared, what they are worth, and which count for the cache."""

from __future__ import annotations

from collections.abc import Mapping

from longshore.build.shell import environment

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
BUILT_IN = frozenset((*_PROXIES, *(name.lower() for name in _PROXIES)))
"""Those that need no ARG, and do not count for the cache without one."""


class BuildArguments:
    """Of one stage. `given` come with the request, `outside` are those in front of the first FROM."""

    def __init__(self, given: Mapping[str, str | None], outside: Mapping[str, str | None]) -> None:
        self._given = given
        self._outside = dict(outside)
        self._declared: dict[str, str | None] = {}

    def declare(self, name: str, default: str | None) -> None:
        """ARG."""
        self._declared[name] = default

    def inherit(self, parent: BuildArguments) -> None:
        """FROM an earlier stage: what is declared there is declared here, too."""
        self._declared = dict(parent._declared)

    def declare_outside(self, name: str, default: str | None) -> None:
        """ARG in front of the first FROM."""
        self._outside[name] = default

    @property
    def size(self) -> int:
        """Characters of all values."""
        values = [*self._given.values(), *self._outside.values(), *self._declared.values()]
        return sum(len(value) for value in values if value)

    @property
    def outside(self) -> dict[str, str | None]:
        """What later stages may take over."""
        return self._outside

    def for_from(self) -> dict[str, str]:
        """The variables of a FROM."""
        return self._values(self._outside)

    def beside(self, env: list[str]) -> dict[str, str]:
        """What is declared and no environment variable hides."""
        hidden = environment(env)
        return {name: value for name, value in self._values(self._declared).items() if name not in hidden}

    def counting(self, arguments: Mapping[str, str]) -> list[str]:
        """Those of `arguments` that make a step another one, as `name=value`, sorted."""
        return sorted(
            f"{name}={value}"
            for name, value in arguments.items()
            if name in self._declared or name not in BUILT_IN
        )

    def _values(self, defaults: Mapping[str, str | None]) -> dict[str, str]:
        names = [*defaults, *(name for name in sorted(BUILT_IN) if name not in defaults)]
        found = ((name, self._value(name, defaults)) for name in names)
        return {name: value for name, value in found if value is not None}

    def _value(self, name: str, defaults: Mapping[str, str | None]) -> str | None:
        given = self._given.get(name)
        if given is not None:
            return given
        default = defaults.get(name)
        return self._outside.get(name) if default is None else default


def unused(given: Mapping[str, str | None], declared: set[str]) -> list[str]:
    """Arguments of the request that no ARG asks for, nor the builder itself."""
    known = declared | BUILT_IN
    return [name for name in given if name not in known and not name.startswith("BUILDKIT_")]
