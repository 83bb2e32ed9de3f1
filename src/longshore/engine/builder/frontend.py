"""What a client asks of BuildKit's Dockerfile frontend, by attributes, as a build's options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from longshore.engine.builder.options import BuildOptions
from longshore.errors import InvalidParameter
from longshore.types.container import HostConfig
from longshore.types.resources import Ulimit

FRONTEND = "dockerfile.v0"
NETWORK_HOST = "network.host"


class _CacheImport(msgspec.Struct, rename="pascal"):
    type: str = ""
    attrs: dict[str, str] | None = None


def frontend_options(
    attributes: Mapping[str, str], session: str, entitlements: Iterable[str]
) -> BuildOptions:
    """Raises InvalidParameter for what is not known, or cannot be done."""
    allowed = frozenset(entitlements)
    arguments: dict[str, str | None] = {}
    labels: dict[str, str] = {}
    contexts: dict[str, str] = {}
    values: dict[str, str] = {}
    for key, value in attributes.items():
        kind, colon, name = key.partition(":")
        if colon and kind == "build-arg":
            arguments[name] = value
        elif colon and kind == "label":
            labels[name] = value
        elif colon and kind == "context":
            contexts[name] = value
        elif colon and kind == "attest":
            raise InvalidParameter(f"attestations are not supported: {name}")
        elif not colon or kind in ("vcs", "sharedkey", "local-sessionid", "input-metadata"):
            values[key] = value
        else:
            raise InvalidParameter(f"unsupported frontend attribute {key}")
    if request := values.get("requestid"):
        raise InvalidParameter(f"unsupported request {request}: only builds are")
    if values.get("contextsubdir"):
        raise InvalidParameter("contextsubdir is not supported: name the directory in the context's URL")
    no_cache = values.get("no-cache")
    return BuildOptions(
        dockerfile=values.get("filename", ""),
        remote=values.get(values.get("contextkey", "context"), ""),
        target=values.get("target", ""),
        platform=_platform(values.get("platform", "")),
        no_cache=no_cache == "",
        no_cache_stages=frozenset(name.lower() for name in (no_cache or "").split(",") if name),
        pull=values.get("image-resolve-mode") == "pull",
        force_remove=True,
        arguments=arguments,
        labels=labels,
        cache_from=_cache_from(values),
        host_config=_host_config(values, allowed),
        session=session,
        contexts=contexts,
        local_dockerfile="dockerfilekey" in values,
        entitlements=allowed,
    )


def _platform(text: str) -> str:
    if "," in text:
        raise InvalidParameter("multiple platforms are not supported: build one at a time")
    return text


def _cache_from(values: Mapping[str, str]) -> list[str]:
    """Images whose steps count as if they were made here. Other kinds of cache there are none of."""
    found = [name for name in values.get("cache-from", "").split(",") if name]
    if text := values.get("cache-imports"):
        try:
            imports = msgspec.json.decode(text, type=list[_CacheImport])
        except msgspec.MsgspecError as exc:
            raise InvalidParameter(f"failed to unmarshal cache-imports: {exc}") from None
        for each in imports:
            if each.type == "registry" and (name := (each.attrs or {}).get("ref")):
                found.append(name)
    return found


def _host_config(values: Mapping[str, str], allowed: frozenset[str]) -> HostConfig:
    network = values.get("force-network-mode", "")
    if network not in ("", "host", "none"):
        raise InvalidParameter(f"invalid network mode {network}")
    if network == "host" and NETWORK_HOST not in allowed:
        raise InvalidParameter("network.host is not allowed")
    hosts = []
    for entry in filter(None, values.get("add-hosts", "").split(",")):
        name, equals, address = entry.partition("=")
        if not equals or not name or not address:
            raise InvalidParameter(f"invalid host {entry}")
        hosts.append(f"{name}:{address}")
    return HostConfig(
        CgroupParent=values.get("cgroup-parent", ""),
        NetworkMode=network,
        ExtraHosts=hosts or None,
        ShmSize=_number(values, "shm-size"),
        Memory=_number(values, "memory"),
        MemorySwap=_number(values, "memswap"),
        CpuShares=_number(values, "cpushares"),
        CpuPeriod=_number(values, "cpuperiod"),
        CpuQuota=_number(values, "cpuquota"),
        CpusetCpus=values.get("cpusetcpus", ""),
        CpusetMems=values.get("cpusetmems", ""),
        Ulimits=[_ulimit(each) for each in values.get("ulimit", "").split(",") if each] or None,
    )


def _number(values: Mapping[str, str], key: str) -> int:
    text = values.get(key, "")
    try:
        return int(text) if text else 0
    except ValueError:
        raise InvalidParameter(f"{key}: invalid number {text!r}") from None


def _ulimit(text: str) -> Ulimit:
    """`name=soft:hard`, or one number for both."""
    name, equals, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    try:
        low = int(soft)
        high = int(hard) if colon else low
    except ValueError:
        raise InvalidParameter(f"invalid ulimit argument: {text}") from None
    if not equals or not name:
        raise InvalidParameter(f"invalid ulimit argument: {text}")
    return Ulimit(Name=name, Hard=high, Soft=low)
