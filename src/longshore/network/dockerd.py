"""Networks as dockerd stores them (libnetwork's `network/files/local-kv.db`), to our records and back.

A network is stored under three keys: what the controller knows of it, how many endpoints it has, and what its
driver made of its options. What libnetwork keeps besides, sandboxes and endpoints, is written by
`dockerd_sandboxes`; what is stale of that, dockerd removes when it starts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import msgspec

from longshore.errors import EngineError
from longshore.network.ipam import IPAMPool, parse_address, parse_network
from longshore.network.ipam_driver import BUILT_IN
from longshore.network.options import (
    DEFAULT_BRIDGE,
    HOST_BINDING,
    ICC,
    INTERFACE_PREFIX,
    MASQUERADE,
    MTU,
    check_bridge_options,
    check_link_name,
    flag,
)
from longshore.network.record import NetworkRecord

log = logging.getLogger(__name__)

_PREFIX = "docker/network/v1.0"
_OPTIONS = "com.docker.network.generic"
SPACE = "LocalDefault"
NIL = "<nil>"


def network_ids(values: Mapping[bytes, bytes]) -> list[str]:
    """The ids of all networks."""
    start = f"{_PREFIX}/network/".encode()
    found = (key[len(start) :].rstrip(b"/") for key in values if key.startswith(start))
    return [id.decode("ascii", "replace") for id in found if id.isalnum()]


def to_record(values: Mapping[bytes, bytes], id: str) -> NetworkRecord | None:
    """A network's record, or None if it is damaged or of a sort that is dockerd's alone."""
    try:
        kept = _decode(values[key("network", id)])
        driver = kept["networkType"]
        if kept.get("inDelete") or kept["ingress"]:
            return None
        if kept["scope"] != "local":
            return None
        made = _decode(values.get(key(driver, id), b""))
        options = (kept.get("generic") or {}).get(_OPTIONS) or {}
        record = msgspec.convert(
            {
                "id": id,
                "name": kept["name"],
                "driver": driver,
                "created": kept["created"],
                "options": options,
                "pools": [*_pools(kept, "ipamV4"), *_pools(kept, "ipamV6")],
                "ipam_driver": kept["ipamType"] or BUILT_IN,
                "address_space": kept.get("addrSpace", "") if _managed(kept) else "",
                "ipam_options": kept.get("ipamOptions") or {},
                "internal": kept["internal"],
                "attachable": kept["attachable"],
                "enable_ipv4": kept.get("enableIPv4", True),
                "enable_ipv6": kept["enableIPv6"],
                "labels": kept.get("labels") or {},
                "config_only": kept.get("configOnly", False),
                "config_from": kept.get("configFrom", ""),
                "link": made.get("BridgeName", ""),
                "parent": made.get("Parent", ""),
                "link_made": made.get("BridgeIfaceCreator") == 1 or bool(made.get("CreatedSubIface")),
            },
            NetworkRecord,
        )
        _check(record)
    except (EngineError, KeyError, TypeError, AttributeError, ValueError, msgspec.MsgspecError) as exc:
        log.warning("network %s is dockerd's alone: %s", id[:12], exc)
        return None
    return record


def _check(record: NetworkRecord) -> None:
    """Raises InvalidParameter, System: links, addresses and options get into the firewall's rules."""
    for link in filter(None, (record.link, record.parent)):
        check_link_name(link)
    for pool in record.pools:
        for subnet in filter(None, (pool.subnet, pool.ip_range)):
            parse_network(subnet)
        for address in filter(None, (pool.gateway, *pool.aux_addresses.values())):
            parse_address(address)
    if record.driver == "bridge":
        check_bridge_options(record.options, internal=record.internal)


def to_values(record: NetworkRecord) -> dict[bytes, bytes]:
    """Everything that is to be stored of a network."""
    generic: dict[str, Any] = {_OPTIONS: record.options}
    addressed = record.driver not in ("host", "null")  # Those of settings alone are null, too.
    if addressed:
        generic["com.docker.network.enable_ipv6"] = record.enable_ipv6
    if record.internal:
        generic["com.docker.network.internal"] = True
    kept: dict[str, Any] = {
        "addrSpace": (record.address_space or SPACE) if addressed else "",
        "attachable": record.attachable,
        "configFrom": record.config_from,
        "configOnly": record.config_only,
        "created": record.created,
        "enableIPv4": record.enable_ipv4,
        "enableIPv6": record.enable_ipv6,
        "generic": generic,
        "id": record.id,
        "inDelete": False,
        "ingress": False,
        "internal": record.internal,
        "ipamOptions": record.ipam_options,
        "ipamType": record.ipam_driver,
        "labels": record.labels,
        "loadBalancerIP": "",
        "loadBalancerMode": "NAT",
        "name": record.name,
        "networkType": record.driver,
        "persist": True,
        "postIPv6": False,
        "scope": "local",
    }
    for version, name in ((4, "ipamV4"), (6, "ipamV6")):
        pools = [pool for pool in record.pools if (":" in pool.subnet) == (version == 6)]
        if pools:
            kept[f"{name}Config"] = _text([_pool_config(pool) for pool in pools])
            if not record.config_only:
                kept[f"{name}Info"] = _text([_pool_info(record, pool) for pool in pools])
    values = {
        key("network", record.id): encode(kept),
        key("endpoint_count", record.id): encode({"Count": 0}),
    }
    if record.driver == "bridge":
        values[key("bridge", record.id)] = encode(_bridge(record))
    elif record.driver in ("macvlan", "ipvlan"):
        values[key(record.driver, record.id)] = encode(_sub_interface(record))
    return values


def remove(values: dict[bytes, Any], id: str) -> None:
    """Drop everything that is stored of a network."""
    for key in [key for key in values if f"/{id}/".encode() in key]:
        del values[key]


def _bridge(record: NetworkRecord) -> dict[str, Any]:
    options = record.options
    made: dict[str, Any] = {
        "BridgeIfaceCreator": 1 if record.link_made else 2,
        "BridgeName": record.link,
        "ContainerIfacePrefix": options.get(INTERFACE_PREFIX, ""),
        "DefaultBindingIP": options.get(HOST_BINDING) or NIL,
        "DefaultBridge": DEFAULT_BRIDGE in options,
        "DefaultGatewayIPv4": NIL,
        "DefaultGatewayIPv6": NIL,
        "EnableICC": flag(options, ICC, default=True),
        "EnableIPMasquerade": flag(options, MASQUERADE, default=True),
        "EnableIPv4": record.enable_ipv4,
        "EnableIPv6": record.enable_ipv6,
        "HostIP": options.get("com.docker.network.host_ipv4") or NIL,
        "ID": record.id,
        "InhibitIPv4": flag(options, "com.docker.network.bridge.inhibit_ipv4", default=False),
        "Internal": record.internal,
        "Mtu": int(options.get(MTU) or 0),
    }
    for pool in reversed(record.pools):  # Of several of one version the first counts.
        if pool.gateway:
            made["AddressIPv6" if ":" in pool.subnet else "AddressIPv4"] = _with_prefix(pool, pool.gateway)
    return made


def _sub_interface(record: NetworkRecord) -> dict[str, Any]:
    """Of macvlan and ipvlan."""
    options, kind = record.options, record.driver.capitalize()
    made: dict[str, Any] = {
        "ID": record.id,
        "Mtu": int(options.get(MTU) or 0),
        "Parent": record.parent,
        f"{kind}Mode": options.get(f"{record.driver}_mode") or ("bridge" if kind == "Macvlan" else "l2"),
        "Internal": record.internal or not options.get("parent"),
        "CreatedSubIface": record.link_made,
    }
    if kind == "Ipvlan":
        made["IpvlanFlag"] = options.get("ipvlan_flag") or "bridge"
    for version, name in ((4, "Ipv4Subnets"), (6, "Ipv6Subnets")):
        pools = [pool for pool in record.pools if (":" in pool.subnet) == (version == 6)]
        if pools:
            made[name] = _text(
                [{"SubnetIP": pool.subnet, "GwIP": _with_prefix(pool, pool.gateway)} for pool in pools]
            )
    return made


def _pools(kept: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    configs: list[dict[str, Any]] = msgspec.json.decode(kept.get(f"{name}Config") or "[]") or []
    infos: list[dict[str, Any]] = msgspec.json.decode(kept.get(f"{name}Info") or "[]") or []
    nothing: dict[str, Any] = {}
    found = []
    for config, info in zip_longest(configs, infos, fillvalue=nothing):
        data = msgspec.json.decode(info.get("IPAMData") or "{}")
        found.append(
            {
                "subnet": data.get("Pool") or config["PreferredPool"],
                "ip_range": config.get("SubPool") or "",
                "gateway": (data.get("Gateway") or config.get("Gateway") or "").partition("/")[0],
                "aux_addresses": config.get("AuxAddresses") or {},
                "chosen": not config.get("PreferredPool"),
                "pool_id": (info.get("PoolID") or "") if _managed(kept) else "",
            }
        )
    return found


def _managed(kept: Mapping[str, Any]) -> bool:
    return kept["ipamType"] not in ("", BUILT_IN)


def _pool_config(pool: IPAMPool) -> dict[str, Any]:
    return {
        "PreferredPool": "" if pool.chosen else pool.subnet,
        "SubPool": pool.ip_range,
        "Gateway": "" if pool.chosen else pool.gateway,
        "AuxAddresses": pool.aux_addresses or None,
    }


def _pool_info(record: NetworkRecord, pool: IPAMPool) -> dict[str, Any]:
    data: dict[str, Any] = {"AddressSpace": record.address_space or SPACE, "Pool": pool.subnet}
    if pool.gateway:
        data["Gateway"] = _with_prefix(pool, pool.gateway)
    if pool.aux_addresses:
        data["AuxAddresses"] = {
            name: _with_prefix(pool, address) for name, address in pool.aux_addresses.items()
        }
    id = f"{SPACE}/{pool.subnet}" + (f"/{pool.ip_range}" if pool.ip_range else "")
    return {"IPAMData": _text(data), "PoolID": pool.pool_id or id}


def _with_prefix(pool: IPAMPool, address: str) -> str:
    return f"{address}/{pool.subnet.partition('/')[2]}" if address else ""


def key(kind: str, *ids: str) -> bytes:
    """What something is stored under."""
    return "/".join((_PREFIX, kind, *ids, "")).encode()


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def encode(value: object) -> bytes:
    """A value as it is stored."""
    # libkv counts the changes of each value in front of it; any number will do to begin with.
    return (1).to_bytes(8, "little") + msgspec.json.encode(value)


def _decode(value: bytes) -> dict[str, Any]:
    found = msgspec.json.decode(value[8:] or b"{}")
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found
