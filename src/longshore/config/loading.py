"""From flags and daemon.json to a Config, with dockerd's rules for both at once, and for reading it again."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from longshore.config.options import DEFAULT_HOST, Config, Directive, directives, parse_bytes
from longshore.errors import InvalidParameter

log = logging.getLogger(__name__)

_MAY_BE_BOTH = frozenset({"runtimes"})
"""Directives that flags and the file add to together."""


def load(flags: Mapping[str, Any], config_file: str, *, file_required: bool = False) -> Config:
    """The configuration that `flags` (Config's attributes to values) and the file make together.

    A file that does not exist is an error only if `file_required`. Raises InvalidParameter.
    """
    given = _read(config_file, required=file_required)
    _refuse_conflicts(flags, given, config_file)
    values = {**given, **flags}
    for name in _MAY_BE_BOTH & given.keys() & flags.keys():
        values[name] = {**given[name], **flags[name]}
    config = Config(**values, config_file=config_file, from_flags=tuple(flags))
    config.hosts = [normalize_host(host, tls=config.tls or config.tlsverify) for host in config.hosts or [""]]
    config.tls = config.tls or config.tlsverify
    validate(config)
    return config


def reload(current: Config, path: str) -> tuple[Config, list[str]]:
    """Read the file at `path` again: the new configuration, and which attributes changed.

    Only directives that dockerd too reloads can change; of the others, and of those no longer in the
    file, `current` keeps the values. Raises InvalidParameter, and then nothing has changed.
    """
    given = _read(path, required=True)
    _refuse_conflicts({name: getattr(current, name) for name in current.from_flags}, given, path)
    live = {one.attribute for one in directives() if one.option.reload}
    config = msgspec.structs.replace(
        current, **{name: value for name, value in given.items() if name in live}
    )
    validate(config)
    changed = [name for name in sorted(live) if getattr(config, name) != getattr(current, name)]
    for name in sorted(given.keys() - live):
        if given[name] != getattr(current, name) and name != "hosts":
            log.warning("a change of %s takes effect when the daemon is started again", _key(name))
    return config, changed


def warn_of_ignored(config: Config) -> None:
    """Say which settings have no effect here."""
    for directive in directives():
        if directive.option.ignored and getattr(config, directive.attribute) != directive.default:
            log.warning("%s has no effect: %s", directive.key, directive.option.ignored)
    for name in config.features.keys() - {"buildkit"}:
        log.warning("features: %s has no effect: it is none of this daemon's", name)


def _read(path: str, *, required: bool) -> dict[str, Any]:
    """The file's directives, as attributes of Config and their typed values."""
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        if not required:
            return {}
        raise _unusable(path, f"open {path}: no such file or directory") from None
    except OSError as exc:
        raise _unusable(path, f"open {path}: {(exc.strerror or '').lower()}") from exc
    if not raw.strip():
        return {}
    try:
        plain = msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError as exc:
        raise _unusable(path, str(exc)) from None
    known = {directive.key: directive for directive in directives()}
    if "host-gateway-ip" in plain:  # the name before there could be two of them
        plain.setdefault("host-gateway-ips", [plain.pop("host-gateway-ip")])
    unknown = sorted(key for key in plain if key not in known)
    if unknown:
        raise _unusable(
            path, f"the following directives don't match any configuration option: {', '.join(unknown)}"
        )
    return {
        known[key].attribute: _typed(known[key], value, path)
        for key, value in plain.items()
        if value is not None
    }


def _typed(directive: Directive, value: Any, path: str) -> Any:
    if directive.attribute == "default_shm_size" and isinstance(value, int):
        value = str(value)
    try:
        return msgspec.convert(value, directive.kind)
    except msgspec.ValidationError as exc:
        raise _unusable(path, f"{directive.key}: {exc}") from None


def _refuse_conflicts(flags: Mapping[str, Any], given: Mapping[str, Any], path: str) -> None:
    both = [
        f"{_key(name)}: (from flag: {_shown(flags[name])}, from file: {_shown(given[name])})"
        for name in given
        if name in flags and name not in _MAY_BE_BOTH
    ]
    if both:
        raise _unusable(
            path,
            "the following directives are specified both as a flag and in the configuration file: "
            + ", ".join(both),
        )


def _unusable(path: str, why: str) -> InvalidParameter:
    return InvalidParameter(f"unable to configure the Docker daemon with file {path}: {why}")


def _key(attribute: str) -> str:
    return next(one.key for one in directives() if one.attribute == attribute)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{' '.join(map(str, value))}]"
    return str(value)


def normalize_host(host: str, *, tls: bool) -> str:
    """A host as -H takes it, completed as dockerd does. Raises InvalidParameter."""
    if not host:
        return DEFAULT_HOST
    kind, separator, rest = host.partition("://")
    if not separator:
        kind, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
    if kind == "unix":
        return f"unix://{rest}" if rest else DEFAULT_HOST
    if kind == "fd":
        return f"fd://{rest}"
    if kind != "tcp":
        raise InvalidParameter(f"invalid bind address format: {host}")
    address, colon, port = rest.rpartition(":")
    if not colon or port.endswith("]"):
        address, port = rest, ""
    if port and not (port.isdecimal() and int(port) < 1 << 16):
        raise InvalidParameter(f"invalid bind address format: {host}")
    return f"tcp://{address or 'localhost'}:{port or ('2376' if tls else '2375')}"


def validate(config: Config) -> None:
    """Raises InvalidParameter for the first value that cannot be."""
    for directive in directives():
        value, option = getattr(config, directive.attribute), directive.option
        if option.choices and value not in option.choices:
            raise InvalidParameter(f"invalid {directive.key}: {value}")
        if option.unsupported and value != directive.default:
            raise InvalidParameter(f"{directive.key} cannot be honoured: {option.unsupported}")
    for label in config.labels:
        if "=" not in label:
            raise InvalidParameter(f"bad attribute format: {label}")
    for address in (*config.dns, config.ip, config.default_gateway, config.default_gateway_v6):
        if address and not _is(ipaddress.ip_address, address):
            raise InvalidParameter(f"{address} is not an ip address")
    for address in config.host_gateway_ips:
        if not _is(ipaddress.ip_address, address):
            raise InvalidParameter(f"{address} is not an ip address")
    for network in (config.bip, config.bip6, config.fixed_cidr, config.fixed_cidr_v6):
        if network and not ("/" in network and _is(ipaddress.ip_interface, network)):
            raise InvalidParameter(f"invalid CIDR address: {network}")
    for pool in config.default_address_pools:
        if not _is(ipaddress.ip_network, pool.base):
            raise InvalidParameter(f"invalid CIDR address: {pool.base}")
    if config.bridge and (config.bip or config.bip6):
        raise InvalidParameter(
            "you specified -b & --bip, mutually exclusive options. Please specify only one"
        )
    if config.mtu < 0:
        raise InvalidParameter(f"invalid default MTU: {config.mtu}")
    for name in ("max_concurrent_downloads", "max_concurrent_uploads", "max_download_attempts"):
        if getattr(config, name) < 1:
            raise InvalidParameter(f"invalid {_key(name)}: {getattr(config, name)}")
    parse_bytes(config.default_shm_size)
    if config.seccomp_profile_json not in ("", "unconfined"):
        _validate_profile(config)
    for text in config.exec_opts:
        key, _, value = text.partition("=")
        if key != "native.cgroupdriver" or value not in ("cgroupfs", "systemd"):
            raise InvalidParameter(
                f"invalid exec-opt {text}: try 'native.cgroupdriver=cgroupfs' or 'systemd'"
            )
    _validate_runtimes(config)
    _validate_registries(config)


def _validate_profile(config: Config) -> None:
    try:
        msgspec.json.decode(config.seccomp_profile_json, type=dict[str, Any])
    except msgspec.DecodeError as exc:
        raise InvalidParameter(f"decoding seccomp profile ({config.seccomp_profile}) failed: {exc}") from None


def _validate_registries(config: Config) -> None:
    """As moby's registry/config.go."""
    for mirror in config.registry_mirrors:
        try:
            parts = urlsplit(mirror)
            host = parts.hostname if parts.port != 0 else None  # the port is read as a number
        except ValueError:
            raise InvalidParameter(f'invalid mirror: "{mirror}" is not a valid URI') from None
        if parts.scheme not in ("http", "https"):
            raise InvalidParameter(f'invalid mirror: unsupported scheme "{parts.scheme}" in "{mirror}"')
        if parts.query or parts.fragment:
            raise InvalidParameter(f'invalid mirror: query or fragment at end of the URI "{mirror}"')
        if parts.username is not None:
            shown = parts._replace(netloc=f"{parts.username}:xxxxx@{parts.netloc.rpartition('@')[2]}")
            raise InvalidParameter(
                f'invalid mirror: username/password not allowed in URI "{urlunsplit(shown)}"'
            )
        if not host:
            raise InvalidParameter(f'invalid mirror: "{mirror}" is not a valid URI')
    for registry in config.insecure_registries:
        bare = registry.lower().removeprefix("http://").removeprefix("https://")
        if "://" in bare:
            raise InvalidParameter(f"insecure registry {registry} should not contain '://'")
        if not re.fullmatch(r"[^\s/]+(/\d+)?", bare.rstrip("/")):
            raise InvalidParameter(f"insecure registry {registry} is not valid: invalid host")


def _validate_runtimes(config: Config) -> None:
    for name, runtime in config.runtimes.items():
        if name == "runc":
            raise InvalidParameter("runtime name 'runc' is reserved")
        if not runtime.path and not runtime.type:
            raise InvalidParameter(f"runtime {name}: either a runtimeType or a path must be configured")
        if runtime.path and runtime.type:
            raise InvalidParameter(
                f"runtime {name}: cannot configure both path and runtimeType for the same runtime"
            )
    if config.runtime(config.default_runtime) is None:
        raise InvalidParameter(f"specified default runtime '{config.default_runtime}' does not exist")


def _is(kind: Any, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
