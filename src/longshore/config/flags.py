"""What the words of the command line mean: from a flag's text to the value of its directive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_origin

from longshore.config.options import AddressPoolConfig, Directive, RuntimeConfig, directives
from longshore.errors import InvalidParameter
from longshore.types.resources import Ulimit

SYNTAX = {
    "runtimes": "name=path",
    "default_ulimits": "name=soft[:hard]",
    "default_address_pools": "base=CIDR,size=N",
    "default_network_opts": "network=option=value",
    "features": "name[=bool]",
    "log_opts": "name=value",
}
"""How the values of flags that are no plain words are written, for the help."""


def parse_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """Typed values of directives from the texts given on the command line, by attribute.

    A flag that may be repeated comes as a list of texts. Raises InvalidParameter.
    """
    known = {directive.attribute: directive for directive in directives()}
    return {name: _value(known[name], text) for name, text in given.items()}


def _value(directive: Directive, text: Any) -> Any:
    try:
        special = _SPECIAL.get(directive.attribute)
        if special is not None:
            return special(text)
        if directive.kind is bool:
            return _boolean(text)
        if directive.kind is int:
            return _integer(text)
        if get_origin(directive.kind) is dict:
            return dict(_pair(item) for item in text)
        return text
    except ValueError as exc:
        shown = text if isinstance(text, str) else ",".join(text)
        raise InvalidParameter(f'invalid argument "{shown}" for "--{directive.flag}" flag: {exc}') from None


def _boolean(text: str) -> bool:
    # strconv.ParseBool
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{text} must be formatted as name=value")
    return name, value


def _runtimes(texts: list[str]) -> dict[str, RuntimeConfig]:
    found: dict[str, RuntimeConfig] = {}
    for name, path in map(_pair, texts):
        if name in found:
            raise ValueError(f"runtime '{name}' was already defined")
        found[name] = RuntimeConfig(path=path)
    return found


def _ulimits(texts: list[str]) -> dict[str, Ulimit]:
    found = {}
    for name, limits in map(_pair, texts):
        soft, _, hard = limits.partition(":")
        limit = Ulimit(Name=name, Soft=_integer(soft), Hard=_integer(hard or soft))
        if limit.Hard != -1 and (limit.Soft == -1 or limit.Soft > limit.Hard):
            raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
        found[name] = limit
    return found


def _address_pools(texts: list[str]) -> list[AddressPoolConfig]:
    found = []
    for text in texts:
        fields = dict(_pair(item) for item in text.split(","))
        if fields.keys() != {"base", "size"}:
            raise ValueError(f"unexpected pool {text}: must be base=CIDR,size=N")
        found.append(AddressPoolConfig(fields["base"], _integer(fields["size"])))
    return found


def _network_options(texts: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for network, option in map(_pair, texts):
        name, value = _pair(option)
        found.setdefault(network, {})[name] = value
    return found


def _features(texts: list[str]) -> dict[str, bool]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        found[name] = _boolean(value) if equals else True
    return found


_SPECIAL = {
    "runtimes": _runtimes,
    "default_ulimits": _ulimits,
    "default_address_pools": _address_pools,
    "default_network_opts": _network_options,
    "features": _features,
}
