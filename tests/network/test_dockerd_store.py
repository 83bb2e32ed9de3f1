"""Networks in dockerd's form: what is written reads the same, and what is damaged is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from longshore.bolt.database import SharedDatabase
from longshore.network.database import NetworkDatabase
from longshore.network.dockerd import network_ids, to_record, to_values
from longshore.network.ipam import IPAMPool
from longshore.network.record import NetworkRecord


def record(driver: str, id: str = "ab" * 32, **more: object) -> NetworkRecord:
    created = "2024-01-01T00:00:00.000000001Z"
    return NetworkRecord(id=id, name=f"{driver}-{id[:2]}", driver=driver, created=created, **more)  # type: ignore[arg-type]


FOUR = IPAMPool(
    subnet="10.1.0.0/16", ip_range="10.1.2.0/24", gateway="10.1.0.1", aux_addresses={"x": "10.1.0.9"}
)
SIX = IPAMPool(subnet="fd00:1::/64", gateway="fd00:1::1", chosen=True)
RECORDS = [
    record("null"),
    record("host"),
    record("bridge", pools=[FOUR, SIX], link="br-x", link_made=True, enable_ipv6=True, labels={"a": "<b>"}),
    record(
        "bridge", pools=[SIX], link="own", options={"com.docker.network.driver.mtu": "1400"}, internal=True
    ),
    record("macvlan", pools=[FOUR], parent="eth0.5", link_made=True, options={"parent": "eth0.5"}),
    record("ipvlan", pools=[FOUR, SIX], parent="dm-x", options={"ipvlan_mode": "l3", "ipvlan_flag": "vepa"}),
    record("null", config_only=True, pools=[FOUR]),
    record(
        "bridge",
        ipam_driver="office",
        address_space="here",
        pools=[IPAMPool(subnet="10.5.0.0/24", gateway="10.5.0.1", pool_id="here-7")],
    ),
    record("bridge", config_from="settings", pools=[FOUR], attachable=True, ipam_options={"o": "p"}),
]


@pytest.mark.parametrize("network", RECORDS, ids=lambda network: f"{network.driver}{len(network.pools)}")
def test_what_is_written_reads_the_same(network: NetworkRecord) -> None:
    values = to_values(network)
    assert network_ids(values) == [network.id]
    assert to_record(values, network.id) == network
    for key, value in values.items():  # Cut off anywhere, it is no network or the same, and no error.
        if b"endpoint_count" not in key:
            assert to_record(values | {key: value[: len(value) // 2]}, network.id) in (None, network)


ODD = [
    record("bridge", pools=[FOUR], link='x" }; flush ruleset; #'),
    record("macvlan", pools=[FOUR], parent="eth0/../x"),
    record("bridge", pools=[IPAMPool(subnet="10.1.0.0/16 }")], link="br-x"),
    record("bridge", pools=[IPAMPool(subnet="10.1.0.0/16", gateway="10.1.0.1 }")], link="br-x"),
    record("bridge", pools=[IPAMPool(subnet="10.1.0.0/16", aux_addresses={"a": "}"})], link="br-x"),
    record("bridge", options={"com.docker.network.bridge.trusted_host_interfaces": 'a" }'}, link="br-x"),
    record("bridge", options={"com.docker.network.host_ipv4": "10.1.0.1 }"}, link="br-x"),
]


@pytest.mark.parametrize("network", ODD)
def test_what_could_be_more_than_it_says_is_left_alone(network: NetworkRecord) -> None:
    assert to_record(to_values(network), network.id) is None


def test_removals_that_were_cut_off_are_finished_and_those_of_dockerd_heard_of(tmp_path: Path) -> None:
    path, ours = (
        tmp_path / "files/local-kv.db",
        [record("bridge", f"{n}" * 64, pools=[FOUR]) for n in range(4)],
    )
    database = NetworkDatabase(path)
    assert database.open([]) == ([], [])
    database.add(ours[:3])
    database.close()
    shared = SharedDatabase(path)
    root = shared.open()  # dockerd removes 1 and makes 3
    kept = root.bucket(b"libnetwork").items
    for key in to_values(ours[1]):
        del kept[key]
    kept.update(to_values(ours[3]))
    shared.save(root)
    shared.close()
    again = NetworkDatabase(path)
    made, removed = again.open(ours[1:3])  # and a crash cut off our removal of 0
    assert (made, removed) == ([ours[3]], [ours[1]])
    again.close()
    assert network_ids(SharedDatabase(path).open().bucket(b"libnetwork").values()) == [ours[2].id, ours[3].id]
