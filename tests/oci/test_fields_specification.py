"""Fields that not every machine can follow, up to the OCI specification that the runtime is given.

Limits of kernel memory are ignored by newer runtimes, block weights need an I/O scheduler that has them,
confinement by AppArmor needs a kernel with it, and a machine with cgroup v2 alone is another machine.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from longshore.linux.host import HostFacts, discover
from longshore.oci.input import SpecInput
from longshore.oci.spec import create_spec
from longshore.oci.validate import adapt_host_config, verify_host_config
from longshore.types.codec import convert
from longshore.types.container import Config, HostConfig

proves = pytest.mark.proves
CAPABLE = (
    *("memory_limit", "swap_limit", "memory_reservation", "cpu_shares", "cpu_cfs", "cpuset", "pids_limit"),
    *("blkio_weight", "blkio_weight_device", "blkio_read_bps", "blkio_write_bps", "blkio_read_iops"),
    *("blkio_write_iops", "devices", "ipv4_forwarding", "cgroup_namespaces", "seccomp", "apparmor"),
)
ONLY_V1 = ("oom_kill_disable", "memory_swappiness", "kernel_memory", "kernel_memory_tcp", "cpu_realtime")
V2: HostFacts = dataclasses.replace(
    discover(),
    **{"cgroup_mode": "v2", **dict.fromkeys(CAPABLE, True), **dict.fromkeys(ONLY_V1, False)},
)
V1: HostFacts = dataclasses.replace(V2, **{"cgroup_mode": "v1", **dict.fromkeys(ONLY_V1, True)})


def specify(host: HostFacts, fields: dict[str, Any], **config: Any) -> tuple[dict[str, Any], list[str]]:
    """The specification of a container with these fields of HostConfig, and the warnings."""
    host_config = convert(fields, HostConfig)
    warnings = verify_host_config(host_config, host)
    adapt_host_config(host_config, host)
    container = SpecInput("id", Config(Cmd=["true"], **config), host_config, Path(__file__).parent)
    return create_spec(container, host), warnings


@pytest.mark.parametrize("host", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize(
    ("fields", "path", "wanted"),
    [
        pytest.param(
            {"BlkioWeight": 300},
            "blockIO.weight",
            300,
            marks=proves("HostConfig.BlkioWeight", only="specification"),
        ),
        pytest.param(
            {"BlkioWeightDevice": [{"Path": "/dev/null", "Weight": 400}]},
            "blockIO.weightDevice",
            [{"major": 1, "minor": 3, "weight": 400}],
            marks=proves(
                "HostConfig.BlkioWeightDevice.Path",
                "HostConfig.BlkioWeightDevice.Weight",
                only="specification",
            ),
        ),
        ({"Memory": 1 << 26}, "memory.swap", 1 << 27),
        ({"Memory": 1 << 26, "MemorySwap": -1}, "memory.swap", -1),
        ({"MemoryReservation": 1 << 25}, "memory.reservation", 1 << 25),
        ({"NanoCpus": 1_500_000_000}, "cpu.quota", 150_000),
        ({"CpuShares": 1}, "cpu.shares", 1),
        ({"PidsLimit": 7}, "pids.limit", 7),
    ],
)
def test_limits(host: HostFacts, fields: dict[str, Any], path: str, wanted: Any) -> None:
    """The runtime makes v2's units of them."""
    spec, warnings = specify(host, fields)
    value = spec["linux"]["resources"]
    for name in path.split("."):
        value = value[name]
    assert (value, warnings) == (wanted, [])


@pytest.mark.parametrize(
    ("fields", "name", "wanted"),
    [
        pytest.param(
            {"KernelMemoryTCP": 1 << 24},
            "kernelTCP",
            1 << 24,
            marks=proves("HostConfig.KernelMemoryTCP", only="specification"),
        ),
        ({"OomKillDisable": True, "Memory": 1 << 26}, "disableOOMKiller", True),
        ({"MemorySwappiness": 0}, "swappiness", 0),
    ],
)
def test_limits_of_v1_alone(fields: dict[str, Any], name: str, wanted: Any) -> None:
    assert specify(V1, fields)[0]["linux"]["resources"]["memory"][name] == wanted


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"OomKillDisable": True}, "Your kernel does not support OomKillDisable. OomKillDisable discarded."),
        (
            {"MemorySwappiness": 5},
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
            "Memory swappiness discarded.",
        ),
    ],
)
def test_what_v2_cannot_do_is_discarded(fields: dict[str, Any], warning: str) -> None:
    spec, warnings = specify(V2, fields)
    assert warnings == [warning]
    assert "memory" not in spec["linux"]["resources"]


def test_v2_containers_have_a_cgroup_namespace() -> None:
    def namespaces(host: HostFacts, **fields: Any) -> set[str]:
        return {one["type"] for one in specify(host, fields)[0]["linux"]["namespaces"]}

    assert "cgroup" in namespaces(V2)
    assert "cgroup" not in namespaces(V2, Privileged=True)
    assert "cgroup" not in namespaces(V2, CgroupnsMode="host")
    assert "cgroup" not in namespaces(V1)
    assert "cgroup" in namespaces(V1, CgroupnsMode="private")


@pytest.mark.parametrize(
    ("options", "privileged", "wanted"),
    [
        ([], False, "docker-default"),
        ([], True, "unconfined"),
        (["apparmor=mine"], False, "mine"),
        (["apparmor:unconfined"], False, "unconfined"),
    ],
)
def test_apparmor(options: list[str], privileged: bool, wanted: str) -> None:
    spec, _ = specify(V2, {"SecurityOpt": options, "Privileged": privileged})
    assert spec["process"]["apparmorProfile"] == wanted


def test_cgroups_of_systemd() -> None:
    host = dataclasses.replace(V2, cgroup_driver="systemd")
    assert specify(host, {})[0]["linux"]["cgroupsPath"] == "system.slice:docker:id"
    assert specify(host, {"CgroupParent": "a.slice"})[0]["linux"]["cgroupsPath"] == "a.slice:docker:id"


def test_scores_below_the_daemons_own_need_a_capability() -> None:
    mighty = dataclasses.replace(V2, effective_capabilities=frozenset({"CAP_SYS_RESOURCE"}))
    assert specify(mighty, {"OomScoreAdj": -900})[0]["process"]["oomScoreAdj"] == -900
