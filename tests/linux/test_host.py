"""Host facts against what the kernel says elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from longshore.errors import InvalidParameter
from longshore.linux.capabilities import from_mask, normalize
from longshore.linux.cgroups import Cgroup, container_cgroup
from longshore.linux.host import HostFacts, discover


def test_facts_are_the_machine_s() -> None:
    host = discover()
    assert host.kernel_version == os.uname().release
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert abs(host.memory_total - kib * 1024) < 1 << 20
    assert set(map(int, Path("/proc/self/oom_score_adj").read_text().split())) == {host.oom_score_adj}
    for controller, mount in host.cgroup_mounts.items():
        assert Path(mount, "cgroup.procs").exists(), controller


def test_capability_names() -> None:
    assert normalize(["net_raw", "CAP_CHOWN", "all"]) == ["CAP_NET_RAW", "CAP_CHOWN", "ALL"]
    assert from_mask(1 << 24) == {"CAP_SYS_RESOURCE"}
    with pytest.raises(InvalidParameter, match='invalid capability: "CAP_FOO"'):
        normalize(["CAP_FOO"])


def test_cgroup_paths() -> None:
    host = HostFacts(cgroup_mode="hybrid", cgroup_mounts={"memory": "/m", "": "/u"})
    assert Cgroup("/docker/x", host).directory("memory") == Path("/m/docker/x")
    assert Cgroup("/docker/x", host).directory("pids") == Path("/u/docker/x")
    scope = container_cgroup("a-b.slice:docker:x", host)
    assert scope.path == "/a.slice/a-b.slice/docker-x.scope"
    with pytest.raises(ValueError, match="upwards"):
        Cgroup("/../x", host)
